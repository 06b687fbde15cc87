"""Results and progress in notebooks: small, without script, and in one output."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from PIL import Image

from runpod_comfy import (
    ConfigurationError,
    LocalWorkflowExecutor,
    OutputFile,
    OutputText,
    WorkflowOutputImage,
    WorkflowResult,
    WorkflowTemplate,
    show_progress,
    show_progress_async,
)
from runpod_comfy.media.html import MAX_THUMBNAILS

pytestmark = pytest.mark.one_python

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&.png"
TEMPLATE = WorkflowTemplate.from_string(
    '{"1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": {{ batch_size }}, '
    '"color": 0}}, "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "p"}}}'
)


def noise(side):
    data = io.BytesIO()
    Image.effect_noise((side, side), 90).convert("RGB").save(data, "JPEG", quality=95)
    return data.getvalue()


def images(count, data, name="a.png"):
    return [WorkflowOutputImage(name=name, data=data) for _ in range(count)]


def test_a_result_of_large_pictures_shows_itself_in_at_most_300_kb():
    html = WorkflowResult(images(64, noise(2048)), job_id="j")._repr_html_()
    assert html.count("<img ") == MAX_THUMBNAILS == 24
    assert "+ 40 more" in html
    assert len(html) <= 300_000


def test_what_is_shown_of_an_ordinary_result_is_good_enough_to_look_at():
    picture = Image.linear_gradient("L").resize((1024, 1536)).convert("RGB")
    data = io.BytesIO()
    picture.save(data, "PNG")
    html = WorkflowResult(images(4, data.getvalue()))._repr_html_()
    assert html.count('width="107" height="160"') == 4
    assert "more" not in html


def test_names_texts_and_warnings_are_text():
    result = WorkflowResult(
        images(1, noise(8), HOSTILE),
        files=[OutputFile(name=HOSTILE, data=b"", media_type=HOSTILE)],
        texts=[OutputText(text=HOSTILE)],
        job_id=HOSTILE,
        warnings=[HOSTILE],
    )
    for html in (result._repr_html_(), result[0]._repr_html_()):
        assert "&lt;script&gt;" in html
        assert not re.search(r"<script|<img src=x|onerror=alert\(1\)>[^&]*<", html)
        assert re.findall(r"<(\w+)", html).count("img") == 1
        assert set(re.findall(r"<(\w+)", html)) <= {"div", "span", "img", "p"}


def test_what_cannot_be_decoded_is_named_and_spoils_nothing(tmp_path):
    gone = WorkflowOutputImage(name="gone.png", data=b"x").kept_at(tmp_path / "gone.png")
    html = WorkflowResult([*images(1, b"no picture", "bad.png"), gone, *images(1, noise(8))])._repr_html_()
    assert html.count("cannot be shown") == 2
    assert html.count("<img ") == 1


def test_a_result_of_nothing_shows_its_job():
    assert "0 images, job j" in WorkflowResult(job_id="j")._repr_html_()


async def test_without_a_notebook_progress_is_only_the_result(capfd):
    with LocalWorkflowExecutor() as executor:
        assert len(show_progress(executor.watch_workflow(TEMPLATE, num_samples=2))) == 2
        assert len(await show_progress_async(executor.watch_workflow_async(TEMPLATE))) == 1
    with pytest.raises(ConfigurationError, match="without Finished"):
        show_progress(iter(()))
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


def test_nothing_of_this_loads_ipython():
    code = "import sys; from runpod_comfy import *; WorkflowResult()._repr_html_(); print('IPython' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], check=True, text=True, stdout=subprocess.PIPE).stdout
    assert found == "False\n"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_an_example_is_committed_without_outputs(path):
    cells = json.loads(path.read_text("utf-8"))["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


def test_the_example_notebooks_run_in_a_kernel_and_progress_is_one_output(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    ran = {}
    for path in NOTEBOOKS:
        notebook = executed(path, cwd=tmp_path / path.parent.relative_to(ROOT))
        ran[path.stem] = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    [shown] = ran["1-first-images"][1]  # drawn many times, and there once
    assert shown.data["text/plain"].startswith("8 images · done")
    assert "<progress value=" in shown.data["text/html"]
    [sheet] = ran["1-first-images"][2]
    assert sheet.data["text/html"].count("<img ") == 8
    [compared] = ran["2-compare"][2]
    assert compared.data["text/html"].count("<img ") == 4
    assert not any(output.get("name") == "stderr" for outputs in ran.values() for each in outputs for output in each)


def executed(path, *, cwd, tries=3):
    notebook = nbformat.read(path, as_version=4)
    try:
        NotebookClient(notebook, timeout=60, startup_timeout=20, resources={"metadata": {"path": str(cwd)}}).execute()
    except (RuntimeError, ValueError):
        # No cell's error: a port that was free when it was looked for was another program's when the kernel took it.
        if tries == 1:
            raise
        return executed(path, cwd=cwd, tries=tries - 1)
    return notebook
