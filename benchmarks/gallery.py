"""The gallery's page in a real chromium: how soon it shows something, how it scrolls, how fast it filters.

    python -m benchmarks.gallery                 8,000 images are drawn first, which takes minutes
    python -m benchmarks.gallery --keep FOLDER   … once: with the same folder the next time it starts at once

It needs chromium (`apt-get install chromium`). Exits with 1 where a figure does not hold its bar. As root on Linux the
browser goes before everything else on the machine, so that other work counts less.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.registry import Figure
from runpod_comfy.dataset.manifest import read_manifest
from runpod_comfy.gallery.page import Gallery, run_of

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from chromium import Chromium, find_chromium
from made_dataset import make_large_dataset

FIRST_PICTURE_MS, TASK_MS, FILTER_MS, NODES = 1000, 100, 50, 400
PAGE_BYTES, ROW_BYTES = 5_000_000, 500
QUERIES = (
    "fox",
    "cfg>5 sampler=euler",
    '"tea fields" -moon',
    "seed>2000000000",
    "zzz",
    "stars>=3",
    "lora:ink steps<25",
    "",
)

WATCH = """
window.seen = {tasks: [], first_ms: null};
new PerformanceObserver(list => { for (const each of list.getEntries()) seen.tasks.push(each.duration); })
  .observe({type: 'longtask', buffered: true});
document.addEventListener('load', event => {
  if (seen.first_ms === null && event.target.matches?.('.tile img')) seen.first_ms = performance.now();
}, true);
"""

SCROLL = """
(async () => {
  const scroller = document.querySelector('.scroller');
  const end = scroller.scrollHeight - scroller.clientHeight;
  const frames = [];
  let nodes = 0;
  seen.tasks.length = 0;
  let before = performance.now();
  for (let step = 0; step <= 300; step++) {
    scroller.scrollTop = end * step / 300;
    await new Promise(done => requestAnimationFrame(done));
    const now = performance.now();
    frames.push(now - before);
    before = now;
    nodes = Math.max(nodes, document.querySelectorAll('*').length);
  }
  await new Promise(done => setTimeout(done, 300));
  return {frames, nodes, tasks: seen.tasks.slice(), height: scroller.scrollHeight};
})()
"""

FILTER = """
(queries => {
  const field = document.querySelector('#search');
  return queries.map(query => {
    const begun = performance.now();
    field.value = query;
    field.oninput();
    document.body.offsetHeight;
    return performance.now() - begun;
  });
})
"""


def measure(root: Path, *, runs: int) -> list[Figure]:
    """Write the page and look at it, several times, and return the figures."""
    begun_s = time.monotonic()
    tasks = read_manifest(root / "manifest.jsonl")
    page = Gallery(root=root, shown_as="out", run=run_of(root)).write(tasks)
    written_s = time.monotonic() - begun_s
    rows, images = len(tasks), sum(len(record.images) for record in tasks.values())
    print(f"{images:,} images of {rows:,} rows, page of {page.stat().st_size / 1e6:.2f} MB in {written_s:.2f} s")
    path = find_chromium()
    if path is None:
        sys.exit("There is no chromium: apt-get install chromium.")
    seen: list[dict[str, Any]] = []
    for _ in range(runs):
        browser = Chromium(path)
        try:
            with contextlib.suppress(OSError):
                Path(f"/proc/{browser.pid}/autogroup").write_text("-20")
            browser.call("Page.addScriptToEvaluateOnNewDocument", source=WATCH)
            browser.open(page)
            browser.wait("seen.first_ms !== null")
            found = browser.run("({first_ms: seen.first_ms, opening: seen.tasks.slice()})")
            found |= browser.run(SCROLL)
            found["filters_ms"] = browser.run(f"({FILTER})({list(QUERIES) * 3})")
            found["errors"] = len(browser.errors)
            found["foreign"] = sum(not url.startswith(("file:", "about:", "data:")) for url in browser.requests)
            seen.append(found)
        finally:
            browser.close()
    return list(figures(seen, size_bytes=page.stat().st_size, rows=images))


def figures(seen: list[dict[str, Any]], *, size_bytes: int, rows: int) -> list[Figure]:
    """Return the figures of several runs: of times the worst counts."""

    def figure(name: str, unit: str, value: float, bar: float | None) -> Figure:
        if bar is None:
            return Figure(name=name, unit=unit, values={"ours": value})
        return Figure(name=name, unit=unit, values={"ours": value}, bar=f"≤ {bar:,}", held=value <= bar)

    frames = [each for run in seen for each in run["frames"]]
    tasks = [each for run in seen for each in run["tasks"]]
    filters = [each for run in seen for each in run["filters_ms"]]
    return [
        figure("first picture, worst", "ms", max(run["first_ms"] for run in seen), FIRST_PICTURE_MS),
        figure(
            "longest task while opening", "ms", max((each for run in seen for each in run["opening"]), default=0), None
        ),
        figure("longest task while scrolling it all", "ms", max(tasks, default=0), TASK_MS),
        figure("tasks over 50 ms in a run", "", max(len(run["tasks"]) for run in seen), 5),
        figure("frame while scrolling, median", "ms", statistics.median(frames), None),
        figure("frame while scrolling, worst", "ms", max(frames), None),
        figure("filter, median", "ms", statistics.median(filters), None),
        figure("filter, worst", "ms", max(filters), FILTER_MS),
        figure("nodes at most", "", max(run["nodes"] for run in seen), NODES),
        figure("page", "bytes", size_bytes, PAGE_BYTES + ROW_BYTES * rows),
        figure("JavaScript errors and foreign requests", "", sum(run["errors"] + run["foreign"] for run in seen), 0),
    ]


def main() -> int:
    """Measure and print; 1 where a bar does not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gallery", description=__doc__)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="a folder for the images, used again if it is there")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        root = (asked.keep or Path(temporary)) / f"gallery-{asked.rows}x{asked.samples}"
        if not (root / "metadata.jsonl").exists():
            begun_s = time.monotonic()
            make_large_dataset(root, rows=asked.rows, samples=asked.samples)
            print(f"images and thumbnails made in {time.monotonic() - begun_s:.0f} s")
        found = measure(root, runs=asked.runs)
    for figure in found:
        verdict = {True: "held: ", False: "NOT HELD: ", None: ""}[figure.held]
        print(f"  {figure.name:<42} {figure.values['ours']:>12,.4g} {figure.unit:<6} {verdict}{figure.bar or ''}")
    return any(figure.held is False for figure in found)


if __name__ == "__main__":
    sys.exit(main())
