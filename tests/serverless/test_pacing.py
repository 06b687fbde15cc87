import asyncio

from hypothesis import given
from hypothesis import strategies as st

from runpod_comfy.serverless.pacing import Limit, Pacer, TokenBucket


@given(st.lists(st.floats(0, 3), min_size=1, max_size=300), st.integers(5, 60))
def test_no_window_of_ten_seconds_sees_more_than_the_limit(gaps, per_window):
    bucket = TokenBucket(Limit(per_window, 1))
    now_s, used_s = 0.0, []
    for gap_s in gaps:
        now_s += gap_s
        used_s.append(now_s + bucket.reserve(now_s))
    used_s.sort()
    for index, start_s in enumerate(used_s):
        inside = [at for at in used_s[index:] if at < start_s + 10]
        assert len(inside) <= per_window + 1


def test_an_idle_bucket_lets_a_burst_through_at_once():
    bucket = TokenBucket(Limit(2000, 400))
    assert [bucket.reserve(100.0) for _ in range(200)] == [0.0] * 200
    assert bucket.reserve(100.0) > 0


def test_a_pause_holds_everybody():
    bucket = TokenBucket(Limit(2000, 400))
    bucket.pause(5.0, 3.0)
    assert bucket.reserve(5.0) >= 3.0
    assert bucket.reserve(7.5) >= 0.5
    assert bucket.reserve(30.0) == 0.0


async def test_no_more_than_the_limit_are_under_way_at_once():
    pacer = Pacer({"run": Limit(10_000, 3)})
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
