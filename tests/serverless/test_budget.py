import asyncio

from runpod_comfy.serverless.budget import ByteBudget


async def test_no_more_bytes_are_lent_than_there_are_and_all_get_theirs():
    budget, lent, most, served = ByteBudget(100), 0, 0, []

    async def work(size):
        nonlocal lent, most
        async with budget.lend(size):
            lent += size
            most = max(most, lent)
            await asyncio.sleep(0)
            lent -= size
        served.append(size)

    sizes = [60, 60, 30, 70, 10, 100, 5]
    await asyncio.gather(*(work(size) for size in sizes))
    assert most <= 100
    assert sorted(served) == sorted(sizes)


async def test_what_is_larger_than_all_of_it_goes_alone():
    budget = ByteBudget(10)
    async with budget.lend(50):
        other = asyncio.create_task(budget.lend(1).__aenter__())
        await asyncio.sleep(0)
        assert not other.done()
    await other


async def test_who_gives_up_waiting_takes_nothing_away():
    budget = ByteBudget(10)
    async with budget.lend(10):
        waiting = [asyncio.create_task(budget.lend(10).__aenter__()) for _ in range(2)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.sleep(0)
    await waiting[1]
