import asyncio
import json
from importlib.resources import files as resources

import jsonschema
import pytest
from PIL import Image

from runpod_comfy import RunpodComfyWorkflowExecutor
from runpod_comfy.dataset.folder import OutputFolder
from runpod_comfy.dataset.naming import NamePattern
from runpod_comfy.dataset.plan import make_tasks
from runpod_comfy.dataset.rows import Row, Table
from runpod_comfy.dataset.runner import DatasetRunner, RunOptions, pending
from runpod_comfy.emulator.faults import Fault, Status
from runpod_comfy.errors import AuthenticationError


def table(*values):
    return Table(rows=tuple(Row(id=f"r{n}", line=n + 2, values=each) for n, each in enumerate(values)))


def run(executor, template, root, data, *, samples=1, **options):
    """Carry out what is left of a dataset; return the tally and how many tasks there were to do."""
    tasks = make_tasks(data, template=template, num_samples=samples, run_seed=5)
    chosen = RunOptions(**{"batch_size": 2, **options})
    with OutputFolder(root) as folder:
        folder.write_run({"schema": "run/1", "id": folder.new_run_id(), "version": "0"})
        todo = pending(tasks, folder, batch_size=chosen.batch_size)
        runner = DatasetRunner(executor, template, folder, options=chosen)
        already = sum(task.num_samples for task in tasks) - sum(task.num_samples for task in todo)
        return asyncio.run(runner.run(todo, already=already)), len(todo)


def files(root):
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))


def metadata(root):
    return [json.loads(line) for line in (root / "metadata.jsonl").read_text().splitlines()]


def test_every_row_is_on_disk_in_the_manifest_and_in_the_metadata(executor, template, tmp_path):
    data = table({"prompt": "a", "sku": 7}, {"prompt": "b"}, {"prompt": "c"})
    tally, _ = run(executor, template, tmp_path, data, samples=4)
    assert (tally.images, tally.images_wanted, tally.tasks_done, tally.tasks_failed) == (12, 12, 3, 0)
    assert files(tmp_path) == [f"images/000/00000{row}_{sample}.png" for row in range(3) for sample in range(4)]
    lines = metadata(tmp_path)
    assert [(line["row"], line["sample"], line["id"]) for line in lines] == [
        (r, s, f"r{r}") for r in range(3) for s in range(4)
    ]
    assert {line["text"] for line in lines} == {"a", "b", "c"}
    assert lines[0]["sku"] == 7
    assert (lines[0]["width"], lines[0]["height"]) == (16, 16)
    with Image.open(tmp_path / lines[0]["file_name"]) as picture:
        assert '"a"' in picture.text["prompt"]


def test_the_same_run_again_does_nothing(executor, template, tmp_path):
    data = table({}, {})
    run(executor, template, tmp_path, data)
    tally, todo = run(executor, template, tmp_path, data)
    assert (todo, tally.images, tally.execution_s) == (0, 2, 0.0)


def test_rows_that_are_added_or_moved_keep_what_there_is(executor, template, tmp_path):
    run(executor, template, tmp_path, table({"prompt": "a"}, {"prompt": "b"}))
    rows = table({"prompt": "a"}, {"prompt": "b"}, {"prompt": "c"}).rows
    _, todo = run(executor, template, tmp_path, Table(rows=rows[::-1]))
    assert todo == 1
    assert {line["id"]: line["row"] for line in metadata(tmp_path)} == {"r0": 0, "r1": 1, "r2": 2}


def test_a_row_that_fails_spares_the_others_and_is_told(executor, template, tmp_path):
    data = table({"color": 1}, {"color": -5}, {"color": 2})
    tally, _ = run(executor, template, tmp_path, data)
    assert (tally.tasks_done, tally.tasks_failed) == (2, 1)
    [((code, _), count)] = tally.failures.items()
    assert (code, count) == ("job_failed", 1)
    [failure] = [
        json.loads(line) for line in (tmp_path / "manifest.jsonl").read_text().splitlines() if "failure/1" in line
    ]
    assert (failure["row_id"], failure["line"], failure["try"]) == ("r1", 3, 1)
    assert "color" in failure["error"]["message"]


def test_only_what_is_missing_is_made_again_with_the_same_seeds(executor, template, tmp_path):
    data = table({"prompt": "a"})
    run(executor, template, tmp_path, data, samples=6)
    before = metadata(tmp_path)
    (tmp_path / before[3]["file_name"]).unlink()  # of the second of three batches
    tally, _ = run(executor, template, tmp_path, data, samples=6)
    after = metadata(tmp_path)
    assert (tally.images, len(after)) == (6, 6)
    assert [line["seed"] for line in after] == [line["seed"] for line in before]
    jobs = [json.loads(line) for line in (tmp_path / "manifest.jsonl").read_text().splitlines() if "job/1" in line]
    assert [job["first_batch"] for job in jobs] == [0, 1]


def test_nothing_more_is_started_once_the_budget_is_used(executor, template, tmp_path):
    data = table(*({"seconds": 0.05, "color": n} for n in range(6)))
    tally, _ = run(executor, template, tmp_path, data, jobs_at_once=1, max_gpu_s=0.12)
    assert tally.stopped_by == "0.12 GPU seconds are used"
    assert 0 < tally.tasks_done < 6
    assert tally.waiting == 6 - tally.tasks_done
    costly, _ = run(executor, template, tmp_path, data, jobs_at_once=1, max_cost_usd=1e-9, price_per_hour_usd=1.0)
    assert costly.stopped_by == "$1e-09 are spent"


def test_a_refused_key_ends_the_run_at_its_first_answer(runpod_emulator, template, tmp_path):
    runpod_emulator.platform.faults.add(Fault("run", Status(401), times=None))
    with RunpodComfyWorkflowExecutor() as executor, pytest.raises(AuthenticationError):
        run(executor, template, tmp_path, table(*({"color": n} for n in range(50))), jobs_at_once=1)
    assert not runpod_emulator.jobs()


def test_every_line_that_a_run_writes_is_as_the_published_schema_says(executor, template, tmp_path):
    run(executor, template, tmp_path, table({"prompt": "a\u2028b", "sku": 7}, {"color": -5}), samples=3)
    schema = json.loads((resources("runpod_comfy") / "schemas" / "manifest-line.json").read_text())
    validator = jsonschema.Draft202012Validator(schema)
    lines = [json.loads(line) for line in (tmp_path / "manifest.jsonl").read_text().splitlines()]
    assert {line["schema"] for line in lines} == {"job/1", "image/1", "batch/1", "done/1", "failure/1"}
    for line in lines:
        validator.validate(line)
    schema = json.loads((resources("runpod_comfy") / "schemas" / "run-record.json").read_text())
    jsonschema.validate(json.loads((tmp_path / "run.json").read_text()), schema)


def test_the_metadata_is_written_while_the_run_goes_on(executor, template, tmp_path, monkeypatch):
    monkeypatch.setattr("runpod_comfy.dataset.folder._METADATA_EVERY_S", 0.01)
    monkeypatch.setattr("runpod_comfy.dataset.folder._METADATA_SHARE", 0)
    seen = []

    def look(_tally):
        seen.append((tmp_path / "metadata.jsonl").exists())

    data = table(*({"seconds": 0.1, "color": n} for n in range(4)))
    tasks = make_tasks(data, template=template)
    with OutputFolder(tmp_path) as folder:
        runner = DatasetRunner(executor, template, folder, options=RunOptions(jobs_at_once=1), on_change=look)
        asyncio.run(runner.run(tasks))
        assert len(metadata(tmp_path)) >= 3
    assert seen[0] is False
    assert seen[-1] is True


def test_images_are_named_and_captioned_as_asked(executor, template, tmp_path):
    tasks = make_tasks(table({"prompt": "A Mug!"}, {"prompt": "a mug"}), template=template, num_samples=2)
    with OutputFolder(tmp_path, names=NamePattern("{prompt}/{sample}.png")) as folder:
        runner = DatasetRunner(executor, template, folder, options=RunOptions(sidecar="txt", jobs_at_once=1))
        asyncio.run(runner.run(tasks))
    assert files(tmp_path) == [f"images/a-mug/{name}.png" for name in ("0-2", "0", "1-2", "1")]
    assert (tmp_path / "images/a-mug/0.txt").read_text() == "A Mug!"
    assert (tmp_path / "images/a-mug/1-2.txt").read_text() == "a mug"


def test_only_the_batches_that_are_missing_are_made_again_wherever_they_are(executor, template, tmp_path):
    data = table({"prompt": "a"})
    run(executor, template, tmp_path, data, samples=6)
    before = metadata(tmp_path)
    manifest = tmp_path / "manifest.jsonl"
    kept = [
        line for line in manifest.read_text().splitlines(keepends=True) if json.loads(line).get("batch") not in {0, 2}
    ]
    manifest.write_text("".join(kept))
    tally, _ = run(executor, template, tmp_path, data, samples=6)
    after = metadata(tmp_path)
    assert (tally.images, len(after)) == (6, 6)
    assert [(line["sample"], line["seed"]) for line in after] == [(line["sample"], line["seed"]) for line in before]
    jobs = [json.loads(line) for line in manifest.read_text().splitlines() if "job/1" in line]
    assert [job["first_batch"] for job in jobs] == [0, 0, 2]


def test_a_service_that_is_down_ends_the_run(runpod_emulator, template, tmp_path):
    runpod_emulator.platform.faults.add(Fault("run", Status(503), times=None, after=3))
    with RunpodComfyWorkflowExecutor() as executor:
        tally, _ = run(executor, template, tmp_path, table(*({"color": n} for n in range(60))), jobs_at_once=1)
    assert tally.tasks_done == 3
    assert tally.stopped_by == "the service failed 20 times in a row"


def test_a_run_in_which_everything_fails_stops_before_all_is_paid_for(executor, template, tmp_path):
    data = table(*({"color": -1 - n} for n in range(60)))
    tally, _ = run(executor, template, tmp_path, data, jobs_at_once=2)
    assert "the first 20 jobs all failed" in tally.stopped_by
    assert 20 <= tally.tasks_failed < 30


def test_a_thumbnail_is_made_of_every_picture_as_it_arrives(executor, template, tmp_path):
    run(executor, template, tmp_path, table({}, {}), samples=2)
    thumbs = sorted(path.name for path in (tmp_path / "__gallery__" / "thumbs" / "000").iterdir())
    assert thumbs == ["000000_0.webp", "000000_1.webp", "000001_0.webp", "000001_1.webp"]


def test_a_failure_says_what_its_row_was_asked_for(executor, template, tmp_path):
    run(executor, template, tmp_path, table({"color": -5, "sku": "x"}))
    [failure] = [
        json.loads(line) for line in (tmp_path / "manifest.jsonl").read_text().splitlines() if "failure/1" in line
    ]
    assert (failure["variables"], failure["columns"]) == ({"color": -5}, {"sku": "x"})
