import asyncio

import pytest

from runpod_comfy.executors.places import Place, Places


def places(*limits):
    made = [Place(name, name, limit) for name, limit in zip("abc", limits, strict=False)]
    return made, Places(made)


async def taken_soon(waiting):
    """Return what a waiting task got, or None where it still waits after every other task had its turn."""
    for _ in range(5):
        await asyncio.sleep(0)
    return waiting.result().name if waiting.done() else None


async def test_the_preferred_place_is_filled_first_and_the_rest_overflows():
    _, all_places = places(2, 1, None)
    assert [(await all_places.take(tried=set())).name for _ in range(5)] == ["a", "a", "b", "c", "c"]


async def test_who_waits_longest_is_served_first():
    [only], all_places = places(1)
    await all_places.take(tried=set())
    waiting = [asyncio.create_task(all_places.take(tried=set())) for _ in range(3)]
    assert [await taken_soon(each) for each in waiting] == [None, None, None]
    all_places.give_back(only)
    assert [await taken_soon(each) for each in waiting] == ["a", None, None]
    for each in waiting[1:]:
        each.cancel()


async def test_a_place_that_was_tried_is_left_to_those_behind():
    [a, b], all_places = places(1, 1)
    await all_places.take(tried=set())
    await all_places.take(tried=set())
    picky, easy = (asyncio.create_task(all_places.take(tried=tried)) for tried in ({a}, set()))
    await taken_soon(picky)
    all_places.give_back(a)
    assert (await taken_soon(picky), await taken_soon(easy)) == (None, "a")
    all_places.give_back(b)
    assert await taken_soon(picky) == "b"


async def test_with_all_places_tried_there_is_none():
    [a, b], all_places = places(1, 1)
    assert await all_places.take(tried={a, b}) is None


async def test_a_waiter_that_gives_up_takes_no_place_with_it():
    [a], all_places = places(1)
    await all_places.take(tried=set())
    first, second = (asyncio.create_task(all_places.take(tried=set())) for _ in range(2))
    await taken_soon(second)
    all_places.give_back(a)
    first.cancel()  # it has been given the place and does not know yet
    await asyncio.gather(first, return_exceptions=True)
    assert await taken_soon(second) == "a"


@pytest.mark.parametrize("failures", [1, 2, 3])
def test_rests_get_longer_and_failures_at_once_count_as_one(failures):
    place, now_s = Place("a", "a", 5), 100.0
    for _ in range(failures):
        now_s = max(now_s, place.rests_until_s)
        place.failed(now_s)
        place.failed(now_s + 0.1)
    assert place.rests_until_s - now_s == 2.0 * 2 ** (failures - 1)


def test_a_rest_ends_after_a_minute_at_most():
    place, now_s = Place("a", "a"), 0.0
    for _ in range(50):
        place.failed(now_s)
        assert place.rests_until_s - now_s <= 60
        now_s = place.rests_until_s


def test_after_a_rest_one_job_shows_whether_the_place_works_again():
    place = Place("a", "a", 5)
    place.failed(0.0)
    assert not place.is_free(1.0)
    assert place.is_free(2.0)
    place.jobs += 1
    assert not place.is_free(2.0)
    place.works()
    assert place.is_free(2.0)


async def test_a_place_is_tried_again_when_its_rest_is_over():
    [a], all_places = places(1)
    a.first_rest_s = 0.05
    await all_places.take(tried=set())
    all_places.leave_out(a)
    all_places.give_back(a)
    waiting = asyncio.create_task(all_places.take(tried=set()))
    assert await taken_soon(waiting) is None
    assert (await waiting).name == "a"
