import asyncio
import io
import os
import signal
import subprocess
import sys

import pytest

from runpod_comfy.worker.child import ChildProcess


@pytest.fixture
def run():
    children = []

    def start(code, **more):
        child = ChildProcess([sys.executable, "-c", code], **more)
        children.append(child)
        return child

    yield start
    for child in children:
        child.stop()


async def test_what_it_prints_is_passed_on_and_its_last_lines_are_kept(run):
    output, lines = io.BytesIO(), []
    child = run(
        "import sys\nfor n in range(100): print(n)\nsys.stderr.write('1%\\r50%\\r100%\\n')",
        output=output,
        on_line=lines.append,
    )
    assert await child.end() == 0
    assert output.getvalue().startswith(b"0\n1\n")
    assert lines[:2] == ["0", "1"]
    assert child.last_lines[-1] == "100%"
    assert len(child.last_lines) == 40


async def test_its_end_is_told_to_everyone_and_to_those_who_ask_later(run):
    child = run("raise SystemExit(3)")
    assert await asyncio.gather(child.end(), child.end()) == [3, 3]
    assert await child.end() == child.exit_code == 3


async def test_end_is_told_though_a_child_of_its_own_holds_its_output_open(run):
    child = run("import os, time\nif os.fork() == 0: time.sleep(60)")
    assert await child.end() == 0


async def test_stopping_takes_also_what_it_has_started_and_does_not_listen(run):
    code = (
        "import os, signal, time\n"
        "pid = os.fork()\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print(pid, flush=True) if pid else None\n"
        "time.sleep(0 if pid else 60)\n"
    )
    told = asyncio.Queue()
    loop = asyncio.get_running_loop()
    child = run(code, on_line=lambda line: loop.call_soon_threadsafe(told.put_nowait, int(line)))
    grandchild = await told.get()
    await child.end()
    await asyncio.to_thread(child.stop)
    async with asyncio.timeout(20):
        while _is_running(grandchild):  # noqa: ASYNC110 - nobody tells of its end
            await asyncio.sleep(0.02)


def _is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123 - a line of the kernel's
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_how_a_signal_ended_it_is_told(run):
    child = run("import time; time.sleep(60)")
    os.kill(child.pid, signal.SIGKILL)
    assert await child.end() == -signal.SIGKILL


def test_it_ends_with_the_process_that_started_it():
    code = (
        "import sys; from runpod_comfy.worker.child import ChildProcess;"
        "print(ChildProcess([sys.executable, '-c', 'import time; time.sleep(60)']).pid)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True, timeout=30)
    assert not _is_running(int(done.stdout))
