import asyncio
import itertools

from hypothesis import given
from hypothesis import strategies as st

from runpod_comfy.serverless.pacing import PUBLISHED_LIMITS, Limit, Pacer, Window


def used(window, now_s, count):
    """When `count` requests go that all wait from `now_s` on."""
    at_s = []
    for _ in range(count):
        now_s += window.delay_s(now_s)
        window.use(now_s)
        at_s.append(now_s)
    return at_s


@given(st.lists(st.floats(0, 3), min_size=1, max_size=300), st.integers(45, 90), st.booleans())
def test_no_window_of_ten_seconds_sees_more_than_the_limit(gaps, per_window, even):
    window = Window(Limit(per_window, 1, even=even))
    now_s, used_s = 0.0, []
    for gap_s in gaps:
        now_s += gap_s
        [now_s] = used(window, now_s, 1)
        used_s.append(now_s)
    for index, start_s in enumerate(used_s):
        assert len([at for at in used_s[index:] if at < start_s + 10 - 1e-6]) <= per_window


def test_requests_that_come_all_the_time_stay_under_a_tenth_in_any_second():
    at_s = used(Window(PUBLISHED_LIMITS["status"]), 0.0, 1000)
    assert max(len([at for at in at_s if start <= at < start + 1]) for start in at_s) < 200


def test_an_idle_endpoint_lets_a_burst_through_at_once():
    window = Window(PUBLISHED_LIMITS["run"])
    assert used(window, 100.0, 500) == [100.0] * 500


def test_a_pause_holds_everybody_and_lets_them_back_one_by_one():
    window = Window(PUBLISHED_LIMITS["stream"])
    window.pause(5.0, 3.0)
    at_s = used(window, 5.0, 20)
    assert at_s[0] == 8.0
    assert all(later - earlier > 0.005 for earlier, later in itertools.pairwise(at_s))


def test_refusals_halve_the_rate_and_time_heals_it():
    window = Window(Limit(1000, 1, even=True))
    window.pause(0.0, 1.0)
    window.pause(0.5, 1.0)  # of the same burst: no second refusal
    at_s = used(window, 1.5, 10)
    assert round(at_s[1] - at_s[0], 4) == round(2 / 80, 4)
    assert used(window, 100.0, 20) == [100.0] * 20


async def test_who_waits_when_a_pause_begins_waits_for_its_end():
    now_s, order = 0.0, []
    pacer = Pacer({"run": Limit(10, 20)}, clock=lambda: now_s)

    async def work(name):
        async with pacer.turn("run"):
            order.append(name)

    await asyncio.gather(*(work(n) for n in range(9)))
    late = asyncio.create_task(work("late"))
    await asyncio.sleep(0)
    pacer.slow_down("run", 3600)
    now_s = 11.0
    await asyncio.sleep(0.01)
    assert (late.done(), order) == (False, list(range(9)))
    late.cancel()


async def test_no_more_than_the_limit_are_under_way_at_once():
    pacer = Pacer({"run": Limit(10_000, 4)})
    inside, most = 0, 0

    async def work():
        nonlocal inside, most
        async with pacer.turn("run"):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*(work() for _ in range(20)))
    assert most == 3
