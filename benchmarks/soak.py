"""A thousand jobs through a storm of faults, with a client that is killed again and again: nothing lost, nothing twice.

``python -m benchmarks.soak`` starts an emulator with workers in a process of its own, under random faults on every
route, and a client in another one. The client is killed (``kill -9``) at random moments and started again; each time it
first collects what the ledger knows to be under way, then submits what was not submitted yet. In the end the folder,
the ledger and what the workers were asked are compared.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from runpod_comfy.ledger import Submitted

_ENDPOINT = "soak"
_BATCHES = 2
_IMAGES_IN_BATCH = 2
_AT_ONCE = 40
_WORKERS = 8
_TEMPLATE = '{"3": {"class_type": "KSampler", "inputs": {"seed": 1, "task": {{ task }}}}}'


def picture(seed: int, index: int) -> bytes:
    """Return the picture that a worker makes of a seed: PNG's first bytes, and noise that repeats itself."""
    return b"\x89PNG\r\n\x1a\n" + hashlib.shake_128(f"{seed} {index}".encode()).digest(2000)


# -- the endpoint ------------------------------------------------------------------------------------------------------


async def _serve(folder: Path, *, chance: float, seed: int, aggregate: bool) -> None:
    from runpod_comfy.dialects.native import LineWriter  # noqa: PLC0415 - each role loads what it needs
    from runpod_comfy.emulator import EmulatorServer, EndpointConfig, FaultPlan, InProcessWorker, Platform  # noqa: PLC0415
    from runpod_comfy.emulator.fault_plan import storm  # noqa: PLC0415
    from runpod_comfy.events import BatchFinished, OutputReady  # noqa: PLC0415
    from runpod_comfy.results import Origin, WorkflowOutputImage  # noqa: PLC0415

    asked = (folder / "asked.jsonl").open("a", buffering=1)

    async def handler(job: dict[str, Any]) -> AsyncGenerator[str]:
        request = job["input"]
        asked.write(json.dumps({"job": job["id"], "id": request["submission_id"], "seeds": request["seeds"]}) + "\n")
        writer = LineWriter()
        for batch, batch_seed in enumerate(request["seeds"]):
            for index in range(_IMAGES_IN_BATCH):
                await asyncio.sleep(0.01)
                origin = Origin(batch=batch, seed=batch_seed, node_id="9")
                name = f"soak_{batch * _IMAGES_IN_BATCH + index + 1:05}_.png"
                image = WorkflowOutputImage(
                    name=name, data=picture(batch_seed, index), media_type="image/png", origin=origin
                )
                for piece in writer.event(OutputReady(output=image)):
                    yield piece
            for piece in writer.event(BatchFinished(batch=batch, batch_count=len(request["seeds"]), seed=batch_seed)):
                yield piece
        for piece in writer.done(gpu_s=0.04):
            yield piece

    config = EndpointConfig(endpoint_id=_ENDPOINT, max_retries=50, default_execution_timeout_s=20)
    platform = Platform(config, faults=FaultPlan(*storm(chance, in_process=True), rng=random.Random(seed)))  # noqa: S311 - a plan that repeats itself
    async with EmulatorServer(platform) as server:
        for number in range(_WORKERS):
            await InProcessWorker(platform, _ENDPOINT, handler, worker_id=f"w{number}", aggregate=aggregate).start()
        (folder / "address.part").write_text(server.base_url)
        (folder / "address.part").rename(folder / "address")
        await asyncio.to_thread(_wait_for, folder / "stop")
        (folder / "faults.json").write_text(json.dumps(platform.faults.counts()))
        (folder / "jobs.json").write_text(json.dumps([each.job_id for each in platform.statuses(_ENDPOINT)]))
        os._exit(0)


def _wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.1)


# -- the client --------------------------------------------------------------------------------------------------------


async def _work(folder: Path, job_count: int) -> None:
    """Collect what is under way, then submit what was not submitted yet; may be killed at any moment."""
    from runpod_comfy import RunpodComfyError, RunpodComfyWorkflowExecutor  # noqa: PLC0415 - see above
    from runpod_comfy.ledger import Ledger, collectable  # noqa: PLC0415 - likewise

    book = Ledger(folder / "jobs.sqlite")
    executor = RunpodComfyWorkflowExecutor(
        _ENDPOINT,
        api_key="a-key",
        base_url=(folder / "address").read_text(),
        ledger=folder / "jobs.sqlite",
        max_concurrent_jobs=_AT_ONCE,
    )
    room = asyncio.Semaphore(_AT_ONCE)

    async def collect(row: Submitted) -> None:
        async with room:
            try:
                await executor.attach(row.job_id or "").result_async()
            except RunpodComfyError as exc:
                print(f"collect {row.job_id}: {type(exc).__name__}: {exc}"[:300], file=sys.stderr)

    async def submit(task: int) -> None:
        try:
            await executor.submit_workflow_async(
                folder / "soak.json.jinja",
                num_samples=_BATCHES,
                seed=task * 10,
                output_dir=folder / "out",
                variables={"task": task},
            )
        except RunpodComfyError as exc:
            print(f"task {task}: {type(exc).__name__}: {exc}"[:300], file=sys.stderr)

    book.recover()
    await asyncio.gather(*(collect(row) for row in collectable(book)))
    known = {row.entry.recipe.variables["task"] for row in book.submissions()}
    await asyncio.gather(*(submit(task) for task in range(job_count) if task not in known))
    # What an error left under way, as when a key server was away for long, is collected once more.
    await asyncio.gather(*(collect(row) for row in collectable(book)))
    print("all done")


# -- the comparison ----------------------------------------------------------------------------------------------------


@dataclass
class Verdict:
    """What was found; ``wrong`` must be empty."""

    figures: dict[str, Any] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


def _judge(folder: Path, job_count: int) -> Verdict:
    from runpod_comfy.ledger import Ledger, State  # noqa: PLC0415 - see above

    verdict = Verdict()
    book = Ledger(folder / "jobs.sqlite")
    book.recover()
    rows = book.submissions()
    roots = [row for row in rows if row.entry.batches is None]
    reruns = [row for row in rows if row.entry.batches is not None]
    on_disk = Counter(
        hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (folder / "out").iterdir()
        if not path.name.startswith(".")
    )

    def wrong(text: str) -> None:
        verdict.wrong.append(text)

    tasks = Counter(row.entry.recipe.variables["task"] for row in roots)
    if sorted(tasks) != list(range(job_count)) or set(tasks.values()) != {1}:
        wrong(f"not each task was submitted once: {job_count - len(tasks)} never, {sum(n > 1 for n in tasks.values())}")
    uncertain_reruns = {row.entry.parent_id for row in reruns if row.state is State.UNCERTAIN}
    for row in roots:
        excused = row.state in {State.UNCERTAIN, State.REFUSED} or row.submission_id in uncertain_reruns
        for seed in row.entry.seeds:
            for index in range(_IMAGES_IN_BATCH):
                count = on_disk[hashlib.sha256(picture(seed, index)).hexdigest()]
                if count > 1 or (count == 0 and not excused):
                    wrong(f"image {index} of seed {seed} is on disk {count} times ({row.state}, job {row.job_id})")
        if not excused and row.state is not State.DONE:
            wrong(f"job {row.job_id} is {row.state}: {row.note}")
    for row in reruns:
        root = book.find(row.entry.parent_id or "")
        if root is None or row.entry.seeds != tuple(root.entry.seeds[b] for b in row.entry.batches or ()):
            wrong(f"rerun {row.submission_id} does not name its first, or has other seeds")
    _compare_with_workers(folder, rows, wrong)
    hidden = [path.name for path in (folder / "out").iterdir() if path.name.startswith(".")]
    verdict.figures = {
        "jobs": len(roots),
        "states": dict(Counter(str(row.state) for row in rows)),
        "reruns": len(reruns),
        "images": sum(on_disk.values()),
        "hidden files left by kills": len(hidden),
        "uncertain, listed": sum(row.state is State.UNCERTAIN for row in rows),
        "faults": json.loads((folder / "faults.json").read_text()),
    }
    return verdict


def _compare_with_workers(folder: Path, rows: list[Submitted], wrong: Any) -> None:
    """No submission may be two jobs, and of each job that workers saw the ledger must know."""
    jobs_of: dict[str, set[str]] = {}
    for line in (folder / "asked.jsonl").read_text().splitlines():
        asked = json.loads(line)
        jobs_of.setdefault(asked["id"], set()).add(asked["job"])
    known = {row.submission_id: row for row in rows}
    for submission_id, jobs in jobs_of.items():
        row = known.get(submission_id)
        if len(jobs) > 1:
            wrong(f"submission {submission_id} was sent {len(jobs)} times")
        if row is None:
            wrong(f"workers saw submission {submission_id}, and the ledger does not know it")
        elif row.job_id is None and row.state != "UNCERTAIN":
            wrong(f"submission {submission_id} runs, and the ledger says {row.state}")


# -- all of it ---------------------------------------------------------------------------------------------------------


def _images_in(folder: Path) -> int:
    out = folder / "out"
    return sum(1 for path in out.iterdir() if not path.name.startswith(".")) if out.is_dir() else 0


def soak(*, job_count: int, kills: int, chance: float, seed: int, aggregate: bool) -> Verdict:
    """Run it once and return what was found."""
    rng = random.Random(seed)  # noqa: S311 - moments that repeat themselves
    with tempfile.TemporaryDirectory(prefix="soak-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "soak.json.jinja").write_text(_TEMPLATE)
        role = [sys.executable, "-m", "benchmarks.soak", "--folder", name, "--jobs", str(job_count)]
        options = ["--chance", str(chance), "--seed", str(seed), *(["--aggregate"] if aggregate else [])]
        endpoint = subprocess.Popen([*role, *options, "--role", "endpoint"])
        started_s, killed = time.monotonic(), 0
        try:
            _wait_for(folder / "address")
            # By how much is done and not by the clock, so that a quick machine sees as many.
            moments = sorted(rng.uniform(0.02, 0.9) * job_count * _BATCHES for _ in range(kills))
            with (folder / "client.log").open("a") as log:
                for moment in moments:
                    client = subprocess.Popen([*role, "--role", "client"], stdout=log, stderr=log)
                    while client.poll() is None and _images_in(folder) < moment:
                        time.sleep(0.01)
                    killed += client.poll() is None
                    client.kill()
                    client.wait()
                subprocess.run([*role, "--role", "client"], stdout=log, stderr=log, check=True, timeout=1800)
        finally:
            (folder / "stop").touch()
            endpoint.wait(timeout=30)
        verdict = _judge(folder, job_count)
        verdict.figures["kills"] = killed
        verdict.figures["seconds"] = round(time.monotonic() - started_s)
        if verdict.wrong:
            verdict.wrong.append((folder / "client.log").read_text()[-3000:])
        return verdict


def main() -> None:
    """Read the arguments and run it in both modes of the worker, or one of its roles."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--chance", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--aggregate", action="store_true", help="Only the aggregating mode.")
    parser.add_argument("--stream-only", action="store_true", help="Only the streaming mode.")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--role", choices=["endpoint", "client"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.role == "endpoint":
        asyncio.run(_serve(args.folder, chance=args.chance, seed=args.seed, aggregate=args.aggregate))
        return
    if args.role == "client":
        asyncio.run(_work(args.folder, args.jobs))
        return
    failed = False
    for aggregate in (False, True):
        if (aggregate and args.stream_only) or (not aggregate and args.aggregate):
            continue
        verdict = soak(job_count=args.jobs, kills=args.kills, chance=args.chance, seed=args.seed, aggregate=aggregate)
        print(json.dumps({"mode": "aggregate" if aggregate else "stream only", **verdict.figures}))
        for text in verdict.wrong:
            print("WRONG:", text)
        failed = failed or bool(verdict.wrong)
    sys.exit(failed)


if __name__ == "__main__":
    main()
