import asyncio

import pytest

from runpod_comfy.executors.merging import merged


async def source(items, *, error=None, closed=None):
    try:
        for item in items:
            await asyncio.sleep(0)
            yield item
        if error:
            raise error
    finally:
        if closed is not None:
            await asyncio.sleep(0.01)
            closed.append(items)


async def test_everything_comes_in_the_order_of_each_source():
    items = [item async for item in merged([source("abc"), source("de"), source("")])]
    assert sorted(items) == list("abcde")
    assert [item for item in items if item in "abc"] == list("abc")


async def test_one_failure_does_not_take_what_the_others_bring():
    items = []

    async def collect():
        async for item in merged([source("a", error=ValueError("first")), source("bcdefg"), source("h")]):
            items.append(item)  # noqa: PERF401 - the error comes on the way

    with pytest.raises(ValueError, match="first"):
        await collect()
    assert sorted(items) == list("abcdefgh")


async def test_leaving_early_closes_every_source_and_waits_for_it():
    closed = []
    merging = merged([source("a" * 100, closed=closed), source("b" * 100, closed=closed)])
    assert await anext(merging) in "ab"
    await merging.aclose()
    assert len(closed) == 2


async def test_a_slow_consumer_holds_the_sources_back():
    taken = 0

    async def counted():
        nonlocal taken
        for number in range(1000):
            taken += 1
            yield number

    merging = merged([counted()])
    await anext(merging)
    for _ in range(20):
        await asyncio.sleep(0)
    assert taken <= 5
    await merging.aclose()
