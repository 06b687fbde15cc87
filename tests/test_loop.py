import asyncio
import concurrent.futures
import contextvars
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import types
from contextlib import suppress

import pytest
from aiohttp import web

from runpod_comfy import _loop

# A script's work: says "started", and when it is cancelled takes a moment and a request to clean up.
WORK = """
import asyncio, os, signal, sys, threading, time
import aiohttp
from runpod_comfy import _loop

URL = sys.argv[1]

async def open_session():
    return aiohttp.ClientSession()

async def work():
    session = await _loop.shared("session", open_session, aiohttp.ClientSession.close)
    try:
        async with session.get(URL + "/start") as answer:
            await answer.read()
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        await asyncio.sleep(0.05)
        async with session.post(URL + "/cancel") as answer:
            await answer.read()
        raise

async def items():
    yield 1
    await work()
"""


@pytest.fixture
def counter():
    """A server that counts what scripts tell it; `.url` and `.seen`."""

    counts = types.SimpleNamespace(seen=[], url="")

    async def note(request):
        counts.seen.append(request.path.strip("/"))
        return web.Response()

    ready, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve():
        app = web.Application()
        app.router.add_route("*", "/{what}", note)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        counts.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        ready.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    ready.wait(10)
    yield counts
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)
    loop.close()


def start(counter, script):
    return subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", "-c", WORK + textwrap.dedent(script), counter.url],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def wait_for(counter, what, count=1):
    deadline = time.monotonic() + 20
    while counter.seen.count(what) < count:
        assert time.monotonic() < deadline, counter.seen
        time.sleep(0.005)


def finish(process):
    out, err = process.communicate(timeout=20)
    # In dev mode asyncio tells of every step over 0.1 s, which a busy machine may take.
    told = [line for line in err.splitlines(keepends=True) if not line.startswith("Executing ")]
    return process.returncode, out, "".join(told)


SYNC = """
try:
    _loop.run_sync(work)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("attempt", range(6))
def test_ctrl_c_in_a_sync_call_cleans_up_once_and_then_raises(counter, attempt):
    process = start(counter, SYNC)
    wait_for(counter, "start")
    time.sleep(attempt * 0.037)
    process.send_signal(signal.SIGINT)
    assert finish(process) == (130, "", "")
    assert counter.seen == ["start", "cancel"]


def test_a_second_ctrl_c_leaves_at_once(counter):
    process = start(
        counter,
        """
        async def stubborn():
            try:
                await work()
            finally:
                while True:
                    with __import__("contextlib").suppress(asyncio.CancelledError):
                        await asyncio.sleep(60)
        try:
            _loop.run_sync(stubborn)
        except KeyboardInterrupt:
            os._exit(130)
        """,
    )
    wait_for(counter, "start")
    process.send_signal(signal.SIGINT)
    wait_for(counter, "cancel")
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert finish(process)[0] == 130
    assert time.monotonic() - began < 4  # far from the five seconds that one interrupt waits


def test_ctrl_c_while_iterating_cleans_up(counter):
    process = start(
        counter,
        """
        try:
            for _ in _loop.iterate_sync(items):
                pass
        except KeyboardInterrupt:
            sys.exit(130)
        """,
    )
    wait_for(counter, "start")
    process.send_signal(signal.SIGINT)
    assert finish(process) == (130, "", "")
    assert counter.seen == ["start", "cancel"]


@pytest.mark.parametrize(
    "ending",
    [
        "async def main():\n    _loop.run_async(work)\n    await asyncio.sleep(0.5)\nasyncio.run(main())",
        # Another future of a gather fails.
        """
async def fail():
    await asyncio.sleep(0.5)
    raise ValueError
async def main():
    await asyncio.gather(_loop.run_async(work), _loop.run_async(fail))
try:
    asyncio.run(main())
except ValueError:
    pass
""",
        # A loop that is neither closed nor cleaned.
        """
loop = asyncio.new_event_loop()
async def main():
    global task
    task = _loop.run_async(work)
    await asyncio.sleep(0.5)
loop.run_until_complete(main())
task._log_destroy_pending = False
loop.close()
""",
        # A stream that somebody still holds.
        "stream = _loop.iterate_sync(items)\nnext(stream)\ntime.sleep(0.5)",
        # A daemon thread waits, which the interpreter will not.
        "threading.Thread(target=_loop.run_sync, args=(work,), daemon=True).start()\ntime.sleep(0.5)",
    ],
    ids=["async", "gather", "abandoned loop", "held stream", "daemon thread"],
)
def test_work_that_is_alive_at_exit_is_cleaned_up(counter, ending):
    process = start(counter, ending)
    code, out, err = finish(process)
    assert (code, out) == (0, "")
    if "daemon=True" not in ending:  # that thread's own traceback may still be printed
        assert err == ""
    assert counter.seen == ["start", "cancel"]


def test_exit_waits_for_the_programs_other_threads(counter):
    process = start(
        counter,
        """
        async def short():
            await asyncio.sleep(0.6)
            return 7
        threading.Thread(target=lambda: print(_loop.run_sync(short), _loop.run_sync(short))).start()
        time.sleep(0.1)
        """,
    )
    assert finish(process) == (0, "7 7\n", "")


def test_exit_waits_for_a_thread_that_is_between_two_items(counter):
    process = start(
        counter,
        """
        between = threading.Event()
        async def numbers():
            for number in range(3):
                yield number
                await asyncio.sleep(0.5)
        def work():
            stream = _loop.iterate_sync(numbers)
            print(next(stream))
            between.set()
            time.sleep(0.6)
            print(list(stream), _loop.run_sync(lambda: asyncio.sleep(0, 7)))
        threading.Thread(target=work).start()
        between.wait()
        """,
    )
    assert finish(process) == (0, "0\n[1, 2] 7\n", "")


def test_exit_does_not_wait_for_an_idle_thread_of_a_pool(counter):
    process = start(
        counter,
        """
        from concurrent.futures import ThreadPoolExecutor
        async def short():
            return 7
        pool = ThreadPoolExecutor(1)
        print(pool.submit(_loop.run_sync, short).result())
        """,
    )
    assert finish(process) == (0, "7\n", "")


def endless(closed):
    """A source that yields for ever, and says when it was closed."""

    async def make():
        try:
            while True:
                yield 1
                await asyncio.sleep(0.01)
        finally:
            closed.set()

    return make


def test_a_stream_that_is_collected_on_the_loops_own_thread_stops_no_other_work():
    closed = threading.Event()
    stream = _loop.iterate_sync(endless(closed))
    next(stream)

    async def collect():
        stream.close()
        await asyncio.to_thread(closed.wait, 20)

    began = time.monotonic()
    _loop.run_sync(collect)
    assert time.monotonic() - began < 4  # far from the five seconds that an early exit waits elsewhere


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # forking then is what is tested
def test_a_stream_that_a_forked_child_closes_stays_its_parents():
    closed = threading.Event()
    stream = _loop.iterate_sync(endless(closed))
    next(stream)
    child = os.fork()
    if child == 0:
        began = time.monotonic()
        stream.close()
        os._exit(time.monotonic() - began > 4)  # far from the five seconds that an early exit waits elsewhere
    assert os.waitpid(child, 0)[1] == 0
    assert next(stream) == 1
    assert not closed.is_set()
    stream.close()
    assert closed.is_set()


def test_a_forked_process_gets_a_loop_of_its_own(counter):
    process = start(
        counter,
        """
        async def who():
            return os.getpid()
        assert _loop.run_sync(who) == os.getpid()
        import warnings
        warnings.simplefilter("ignore")
        child = os.fork()
        assert _loop.run_sync(who) == os.getpid()
        if child:
            sys.exit(os.waitpid(child, 0)[1])
        """,
    )
    assert finish(process)[::2] == (0, "")


async def answer(value=42):
    await asyncio.sleep(0)
    return value


def test_a_sync_call_returns_what_the_work_returns():
    assert _loop.run_sync(answer) == 42


async def test_a_sync_call_works_inside_a_running_loop():
    assert _loop.run_sync(answer) == 42


async def test_an_async_call_gives_an_asyncio_future():
    future = _loop.run_async(answer)
    assert isinstance(future, asyncio.Future)
    assert await future == 42


def test_an_async_call_outside_a_loop_raises_before_anything_starts():
    called = []
    with pytest.raises(RuntimeError):
        _loop.run_async(lambda: called.append(1))
    assert called == []


async def test_a_sync_call_on_the_librarys_own_loop_is_refused():
    async def nested():
        _loop.run_sync(answer)

    with pytest.raises(RuntimeError, match="own loop"):
        await _loop.run_async(nested)


@pytest.mark.parametrize("error", [ValueError("x"), TimeoutError("theirs"), StopAsyncIteration()])
def test_errors_pass_with_their_class(error):
    async def work():
        raise error

    with pytest.raises((type(error), RuntimeError)):
        _loop.run_sync(work)


async def test_cancelling_the_future_waits_for_the_clean_up():
    seen, started = [], threading.Event()

    async def work():
        started.set()
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.3)
            seen.append("clean")

    future = _loop.run_async(work)
    assert await asyncio.to_thread(started.wait, 10)
    future.cancel()
    with pytest.raises(asyncio.CancelledError):
        await future
    assert seen == ["clean"]


async def test_a_future_cancelled_before_its_first_step_stops_the_work():
    ended = threading.Event()

    async def work():
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    future = _loop.run_async(work)
    time.sleep(0.1)  # noqa: ASYNC251 - the work begins while the caller's loop does not turn
    future.cancel()
    with suppress(asyncio.CancelledError):
        await future
    assert await asyncio.to_thread(ended.wait, 10)


def counting(closed, count=1000):
    async def numbers():
        try:
            for number in range(count):
                await asyncio.sleep(0)
                yield number
        finally:
            await asyncio.sleep(0.05)
            closed.append(True)

    return numbers


def test_iterating_yields_everything_in_order_and_closes():
    closed = []
    assert list(_loop.iterate_sync(counting(closed))) == list(range(1000))
    assert closed == [True]


async def test_iterating_async_yields_everything_in_order_and_closes():
    closed = []
    assert [number async for number in _loop.iterate_async(counting(closed))] == list(range(1000))
    assert closed == [True]


def test_breaking_out_closes_the_source_and_waits_for_it():
    closed = []
    stream = _loop.iterate_sync(counting(closed, 10**9))
    for number in stream:
        if number == 3:
            break
    stream.close()
    assert closed == [True]


async def test_closing_an_async_stream_closes_the_source_and_waits_for_it():
    closed = []
    stream = _loop.iterate_async(counting(closed, 10**9))
    async for number in stream:
        if number == 3:
            break
    await stream.aclose()
    assert closed == [True]


def test_a_slow_reader_holds_the_source_back():
    made = []

    async def numbers():
        for number in range(10**6):
            made.append(number)
            yield number

    stream = _loop.iterate_sync(numbers)
    next(stream)
    time.sleep(0.3)
    assert len(made) < 1000
    stream.close()


def test_an_error_comes_after_what_was_yielded():
    async def numbers():
        yield 1
        raise ValueError("after one")

    stream = _loop.iterate_sync(numbers)
    assert next(stream) == 1
    with pytest.raises(ValueError, match="after one"):
        next(stream)


def test_many_threads_share_one_loop():
    async def whose():
        return threading.get_ident()

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        assert len(set(pool.map(lambda _: _loop.run_sync(whose), range(64)))) == 1


def test_the_callers_context_travels_with_the_work():
    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("given")

    async def read():
        return variable.get()

    assert _loop.run_sync(read) == "given"


def test_a_shared_resource_is_made_once_and_closed_once():
    made, closed = [], []

    async def make():
        await asyncio.sleep(0.05)
        made.append(object())
        return made[-1]

    async def close(resource):
        closed.append(resource)

    async def use():
        return await _loop.shared("test-resource", make, close)

    async def use_twice():
        return await asyncio.gather(use(), use())

    first, second = _loop.run_sync(use_twice)
    assert first is second
    assert made == [first]
    _loop.run_sync(lambda: _loop.close_shared("test-resource"))
    assert closed == [first]


def test_a_resource_that_could_not_be_made_is_tried_again():
    tries = []

    async def make():
        tries.append(1)
        if len(tries) == 1:
            raise OSError("not yet")
        return "made"

    async def close(_):
        return

    async def use():
        return await _loop.shared("flaky-resource", make, close)

    with pytest.raises(OSError, match="not yet"):
        _loop.run_sync(use)
    assert _loop.run_sync(use) == "made"
    _loop.run_sync(lambda: _loop.close_shared("flaky-resource"))


def test_signals_reach_the_waiting_thread_and_not_the_loops():
    if not hasattr(signal, "pthread_sigmask"):
        pytest.skip("no signal masks here")

    async def blocked():
        return signal.pthread_sigmask(signal.SIG_BLOCK, [])

    assert signal.SIGINT in _loop.run_sync(blocked)
