"""A dataset of thousands of rows through a storm of faults, its `batch` killed again and again; then it is opened.

``python -m benchmarks.dataset_faults`` starts an emulator with workers in a process of its own, under random faults on
every route, and ``runpod-comfy batch`` in another one, which is killed (``kill -9``) at random moments and started
again. In the end the folder is compared with what the workers were asked, and opened by datasets, pandas and
webdataset; so is the folder as the first kill left it. Some rows can only fail.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import itertools
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

_ENDPOINT = "storm"
_SAMPLES, _BATCH = 4, 2
_WORKERS = 8
_SIDE = 64
_MOST_RUNS = 10
_UNCERTAIN = {"submission_uncertain", "job_error"}
_COMMAND = "import sys; from runpod_comfy.cli import main; sys.exit(main())"
_TEMPLATE = """{
  "1": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": {{ batch_size }}}},
  "3": {"class_type": "KSampler", "inputs": {"seed": {{ seed }}, "cfg": {{ cfg }}, "latent_image": ["1", 0]}},
  "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "{{ prompt }}"}},
  "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "s"}}
}"""


def picture(seed: int, index: int) -> bytes:
    """Return the PNG that a worker makes of a seed: noise that repeats itself, 12 KB."""
    noise = hashlib.shake_128(f"{seed} {index}".encode()).digest(_SIDE * _SIDE * 3)
    lines = b"".join(b"\0" + noise[at : at + _SIDE * 3] for at in range(0, len(noise), _SIDE * 3))
    header = struct.pack(">IIBBBBB", _SIDE, _SIDE, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines, 0)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I4s", len(data), kind) + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


# -- the endpoint ------------------------------------------------------------------------------------------------------


async def _serve(folder: Path, *, chance: float, seed: int) -> None:
    from runpod_comfy.dialects.native import LineWriter  # noqa: PLC0415 - each role loads what it needs
    from runpod_comfy.emulator import EmulatorServer, EndpointConfig, FaultPlan, InProcessWorker, Platform  # noqa: PLC0415
    from runpod_comfy.emulator.fault_plan import storm  # noqa: PLC0415
    from runpod_comfy.events import BatchFinished, OutputReady  # noqa: PLC0415
    from runpod_comfy.results import Origin, WorkflowOutputImage  # noqa: PLC0415

    asked = (folder / "asked.jsonl").open("a", buffering=1)

    async def handler(job: dict[str, Any]) -> AsyncGenerator[str]:
        seeds = job["input"]["seeds"]
        asked.write(json.dumps({"job": job["id"], "seeds": seeds, "at": time.time()}) + "\n")
        if '"text": "fail' in json.dumps(job["input"]):
            raise ValueError("this row can only fail")
        writer = LineWriter()
        for batch, batch_seed in enumerate(seeds):
            for index in range(_BATCH):
                await asyncio.sleep(0.002)
                origin = Origin(batch=batch, seed=batch_seed, node_id="9")
                name = f"s_{batch * _BATCH + index + 1:05}_.png"
                image = WorkflowOutputImage(
                    name=name, data=picture(batch_seed, index), media_type="image/png", origin=origin
                )
                for piece in writer.event(OutputReady(output=image)):
                    yield piece
            for piece in writer.event(BatchFinished(batch=batch, batch_count=len(seeds), seed=batch_seed)):
                yield piece
        for piece in writer.done(gpu_s=0.01):
            yield piece

    config = EndpointConfig(endpoint_id=_ENDPOINT, max_retries=50, default_execution_timeout_s=20)
    platform = Platform(config, faults=FaultPlan(*storm(chance, in_process=True), rng=random.Random(seed)))  # noqa: S311 - a plan that repeats itself
    async with EmulatorServer(platform) as server:
        for number in range(_WORKERS):
            await InProcessWorker(platform, _ENDPOINT, handler, worker_id=f"w{number}", aggregate=False).start()
        (folder / "address.part").write_text(server.base_url)
        (folder / "address.part").rename(folder / "address")
        await asyncio.to_thread(_wait_for, folder / "stop")
        (folder / "faults.json").write_text(json.dumps(platform.faults.counts()))
        os._exit(0)


def _wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.1)


# -- the client --------------------------------------------------------------------------------------------------------


def _batch(folder: Path, rows: int, log: Any) -> subprocess.Popen[bytes]:
    env = {
        **os.environ,
        "RUNPOD_ENDPOINT_BASE_URL": (folder / "address").read_text(),
        "RUNPOD_API_KEY": "a-key",
        "RUNPOD_COMFY_LEDGER": str(folder / "jobs.sqlite"),
    }
    words = [sys.executable, "-c", _COMMAND, *_words(rows)]
    return subprocess.Popen(words, cwd=folder, env=env, stdout=log, stderr=log)


def _words(rows: int) -> list[str]:
    words = ["batch", "t.json.jinja", "rows.csv", "-o", "out", "-n", str(_SAMPLES), "-b", str(_BATCH), "-y"]
    return [*words, "--max-images", str(rows * _SAMPLES), "--jobs", "40", "--endpoint", _ENDPOINT, "--progress", "none"]


@dataclass
class Watch:
    """What a client took: its resident memory by how many images were there, in MB."""

    rss: list[tuple[int, float]] = field(default_factory=list)

    def look(self, process: subprocess.Popen[bytes], images: int) -> None:
        """Note down what the process takes now."""
        try:
            pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            return
        self.rss.append((images, pages * os.sysconf("SC_PAGESIZE") / 1e6))

    def at(self, images: float) -> float | None:
        """Return what it took when so many images were there."""
        return next((round(size, 1) for count, size in self.rss if count >= images), None)


def _images_in(folder: Path) -> int:
    root = folder / "out" / "images"
    return sum(1 for part in root.iterdir() for _ in part.glob("[0-9]*.png")) if root.is_dir() else 0


def _run(folder: Path, rows: int, log: Any, *, until: float = float("inf")) -> tuple[int | None, Watch]:
    """Run the command until it ends or so many images are there; returns its exit code, None where it was killed."""
    process, watch = _batch(folder, rows, log), Watch()
    while process.poll() is None:
        images = _images_in(folder)
        watch.look(process, images)
        if images >= until:
            process.kill()
            process.wait()
            return None, watch
        time.sleep(0.1)
    return process.returncode, watch


# -- the comparison ----------------------------------------------------------------------------------------------------


def _lines(folder: Path, name: str = "out/manifest.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text("utf-8").split("\n") if line]


def _judge(folder: Path, rows: int, killed_at: list[float]) -> tuple[dict[str, Any], list[str]]:
    """Compare files, manifest and metadata with each other, and with what workers were asked."""
    wrong: list[str] = []
    lines = _lines(folder)
    images = {(line["task"], line["sample"]): line for line in lines if line["schema"] == "image/1"}
    if len(images) != rows * _SAMPLES:
        wrong.append(f"the manifest has {len(images)} images of {rows * _SAMPLES}")
    files = {path.relative_to(folder / "out").as_posix() for path in (folder / "out" / "images").rglob("*.png")}
    if files != {line["file"] for line in images.values()}:
        wrong.append(f"{len(files ^ {line['file'] for line in images.values()})} files are in one of disk and manifest")
    for line in images.values():
        data = (folder / "out" / line["file"]).read_bytes()
        pictures = [picture(int(line["seed"]), place) for place in range(_BATCH)]
        if hashlib.sha256(data).hexdigest() != line["sha256"] or data not in pictures:
            wrong.append(f"{line['file']} is not what its line says")
    if twice := len(images) - len({line["sha256"] for line in images.values()}):
        wrong.append(f"{twice} images are there twice")
    metadata = _lines(folder, "out/metadata.jsonl")
    if {line["file_name"] for line in metadata} != files or len(metadata) != len(files):
        wrong.append(f"metadata.jsonl has {len(metadata)} lines for {len(files)} files")
    whole = Counter((line["task"], line["batch"]) for line in lines if line["schema"] == "batch/1")
    if len(whole) != rows * _SAMPLES // _BATCH:
        wrong.append(f"{len(whole)} batches are whole of {rows * _SAMPLES // _BATCH}")
    figures = {
        "images": len(images),
        "image lines": sum(line["schema"] == "image/1" for line in lines),
        "failed rows": len({line["task"] for line in lines if line["schema"] == "failure/1"}),
        "hidden files left by kills": sum(1 for _ in (folder / "out").rglob(".*.part")),
    }
    return figures | _paid_twice(folder, lines, wrong, killed_at=killed_at), wrong


def _paid_twice(
    folder: Path, lines: list[dict[str, Any]], wrong: list[str], *, killed_at: list[float]
) -> dict[str, Any]:
    """Count batches that more than one job computed, by what forced it."""
    known = {line["job_id"]: line for line in lines if line["schema"] == "job/1"}
    failures = [line for line in lines if line["schema"] == "failure/1"]
    failed = {line["job_id"] for line in failures}
    uncertain = {line["task"] for line in failures if line["error"]["code"] in _UNCERTAIN}
    task_of = {int(line["seed"]): line["task"] for line in lines if line["schema"] == "image/1"}
    jobs: dict[int, dict[str, float]] = defaultdict(dict)
    runs = Counter[str]()
    for line in _lines(folder, "asked.jsonl"):
        runs[line["job"]] += 1
        for seed in line["seeds"]:
            jobs[seed].setdefault(line["job"], line["at"])
    reasons: Counter[str] = Counter()
    for seed, of_seed in jobs.items():
        if seed not in task_of:
            continue  # of a row that can only fail
        ids = list(of_seed)
        for job, following in itertools.pairwise(ids):
            if task_of[seed] in uncertain:  # the row's own POST, or the one that was to make lost lines again
                reasons["the answer to POST /run was lost: a fault"] += 1
            elif job in failed:
                reasons["the job had failed: a fault"] += 1
            elif any(of_seed[job] - 1 <= moment <= of_seed[following] for moment in killed_at):
                reasons["a kill came between the two"] += 1
            elif following not in known:
                reasons["lines of the answer were lost: a fault"] += 1
            else:
                wrong.append(f"seed {seed} was computed again by {following}, and nothing forced it")
    return {
        "jobs": len(runs),
        "batches": len(jobs),
        "batches computed by a second job": dict(reasons),
        "jobs begun again by RunPod since a worker died": sum(count - 1 for count in runs.values()),
    }


def _open(folder: Path, name: str) -> dict[str, Any]:
    """Open a dataset with the loaders it is meant for; returns what they counted, and what exporting took."""
    import datasets  # noqa: PLC0415 - the endpoint and the client load none of these
    import pandas as pd  # noqa: PLC0415 - see above
    import webdataset  # noqa: PLC0415 - see above

    datasets.disable_progress_bars()
    root, cache, counts = folder / name, str(folder / f"cache-{name}"), dict[str, Any]()

    def export(form: str, *words: str) -> None:
        began_s = time.monotonic()
        command = [sys.executable, "-c", _COMMAND, "export", form, name, *words, "-q"]
        process, watch = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL), Watch()
        while process.poll() is None:
            watch.look(process, 0)
            time.sleep(0.02)
        assert process.returncode == 0, form
        peak = max(size for _, size in watch.rss)
        counts[f"export {form}"] = f"{time.monotonic() - began_s:.1f} s, {peak:.0f} MB"

    export("hf")
    loaded = datasets.load_dataset(str(root), cache_dir=cache)
    counts["datasets"] = {split: (each.num_rows, len(each.column_names)) for split, each in loaded.items()}
    counts["imagefolder"] = datasets.load_dataset("imagefolder", data_dir=str(root), cache_dir=cache)["train"].num_rows
    counts["pandas"] = len(pd.read_json(root / "metadata.jsonl", lines=True))
    for form in ("parquet", "webdataset", "kohya", "civitai", "csv"):
        export(form)
    counts["datasets of parquet"] = datasets.load_dataset(str(folder / f"{name}-parquet"), cache_dir=cache)[
        "train"
    ].num_rows
    counts["pandas of csv"] = len(pd.read_csv(folder / f"{name}-csv" / "images.csv"))
    shards = sorted(map(str, (folder / f"{name}-webdataset").glob("*.tar")))
    counts["webdataset"] = sum(1 for _ in webdataset.WebDataset(shards, shardshuffle=False).decode("pil"))
    return counts


# -- all of it ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Storm:
    """What is done to a dataset.

    Attributes:
        rows: Rows that can be made.
        failing: Further rows that can only fail.
        kills: How often the command is killed.
        chance: How likely each request, piece and result meets a fault.
        seed: Where chance comes from.
    """

    rows: int
    failing: int
    kills: int
    chance: float
    seed: int

    @property
    def all_rows(self) -> int:
        """How many rows the table has."""
        return self.rows + self.failing

    def write_table(self, path: Path) -> None:
        """Write the rows."""
        bad = {self.all_rows * number // self.failing for number in range(self.failing)} if self.failing else set()
        lines = (f"r{n},{'fail' if n in bad else 'a mug'} {n},{n % 9}" for n in range(self.all_rows))
        path.write_text("\n".join(["id,prompt,cfg", *lines]) + "\n")


def storm_over_dataset(folder: Path, storm: Storm) -> list[str]:
    """Run it once, print what was measured, and return what is wrong."""
    (folder / "t.json.jinja").write_text(_TEMPLATE)
    storm.write_table(folder / "rows.csv")
    role = [sys.executable, "-m", "benchmarks.dataset_faults", "--role", "endpoint", "--folder", str(folder)]
    endpoint = subprocess.Popen([*role, "--chance", str(storm.chance), "--seed", str(storm.seed)])
    began_s, killed_at, runs = time.monotonic(), list[float](), list[Watch]()
    try:
        _wait_for(folder / "address")
        code = _carry_through(folder, storm, killed_at, runs)
        seconds, began_again_s = time.monotonic() - began_s, time.monotonic()
        subprocess.run(
            [sys.executable, "-c", _COMMAND, *_words(storm.all_rows), "--dry-run"],
            cwd=folder,
            stderr=subprocess.DEVNULL,
            check=True,
            env={**os.environ, "RUNPOD_API_KEY": "a-key"},
        )
        again_s = time.monotonic() - began_again_s
    finally:
        (folder / "stop").touch()
        endpoint.wait(timeout=30)
    figures, wrong = _judge(folder, storm.rows, killed_at)
    longest = max(runs, key=lambda each: each.rss[-1][0] - each.rss[0][0])
    first, last = longest.rss[0][0], longest.rss[-1][0]
    figures |= {
        "kills": len(killed_at),
        "runs": len(runs),
        "seconds": round(seconds),
        "last exit code": code,
        "plan of the same command when all is there, s": round(again_s, 1),
        "client's RSS in its longest run, MB by images": {
            round(at): longest.at(at) for at in (first + (last - first) * part / 5 for part in range(1, 6))
        },
        "faults": json.loads((folder / "faults.json").read_text()),
    }
    print(json.dumps(figures))
    return wrong


def _carry_through(folder: Path, storm: Storm, killed_at: list[float], runs: list[Watch]) -> int | None:
    """Run the command until everything is there that can be, killed in between; returns its last exit code."""
    rng = random.Random(storm.seed)  # noqa: S311 - moments that repeat themselves
    wanted = storm.rows * _SAMPLES
    code: int | None = None
    with (folder / "client.log").open("a") as log:
        for moment in sorted(rng.uniform(0.05, 0.9) * wanted for _ in range(storm.kills)):
            code, watch = _run(folder, storm.all_rows, log, until=moment)
            runs.append(watch)
            if code is None:
                killed_at.append(time.time())
            if not (folder / "interrupted").exists():
                _keep_as_it_is(folder)
        # Rows that faults made fail are tried again by the same command.
        for _ in range(_MOST_RUNS):
            code, watch = _run(folder, storm.all_rows, log)
            runs.append(watch)
            if code == 0 or (code == 1 and _images_in(folder) == wanted):
                break
    return code


def _keep_as_it_is(folder: Path) -> None:
    """Copy the folder as a kill left it; its images are linked."""
    shutil.copytree(
        folder / "out",
        folder / "interrupted",
        copy_function=lambda a, b: os.link(a, b) if a.endswith(".png") else shutil.copy2(a, b),
    )


def main() -> None:
    """Read the arguments and run it, or its endpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--failing", type=int, default=6, help="Further rows that can only fail.")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--chance", type=float, default=0.03)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--unopened", action="store_true", help="Do not open the folders with other programs.")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--role", choices=["endpoint"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.role:
        asyncio.run(_serve(args.folder, chance=args.chance, seed=args.seed))
        return
    with tempfile.TemporaryDirectory(prefix="dataset-", ignore_cleanup_errors=True) as name:
        folder = args.folder or Path(name)
        wanted = Storm(rows=args.rows, failing=args.failing, kills=args.kills, chance=args.chance, seed=args.seed)
        wrong = storm_over_dataset(folder, wanted)
        for each in ("out", "interrupted") if not args.unopened else ():
            if (folder / each / "images").exists():
                print(each, json.dumps(_open(folder, each)))
    for text in wrong[:20]:
        print("WRONG:", text)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
