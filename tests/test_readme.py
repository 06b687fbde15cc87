"""Every snippet of the README runs as written, against the emulator."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from runpod_comfy import LocalWorkflowExecutor, WorkflowTemplate, _loop
from runpod_comfy.emulator.comfyui import ComfyUIStandIn

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


SNIPPETS = blocks("python")
LINES = [line for text in blocks("console") for line in text.splitlines()]
COMMANDS = [line[2:].partition("  #")[0] for line in LINES if line.startswith("$ ")]


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder with what a reader of the README has there."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    photos = sorted((tmp_path / "examples" / "portrait").glob("*.jpg"))
    for number, photo in enumerate(photos, 1):
        shutil.copy(photo, tmp_path / f"image{number}.jpg")
    shutil.copy(tmp_path / "examples" / "portrait" / "workflow.json.jinja", tmp_path)
    shutil.copy(photos[0], tmp_path / "me.jpg")
    shutil.copy(ROOT / "tests" / "data" / "saved_workflow.json", tmp_path / "my_workflow.json")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_script(text, *, cwd):
    return subprocess.run(
        [sys.executable, "-c", text], cwd=cwd, env={**os.environ, "HOME": str(cwd)}, text=True, check=True, timeout=100
    )


def runpod_snippet():
    [snippet] = [text for text in SNIPPETS if "import runpod\n" in text]
    return snippet.replace("<YOUR_RUNPOD_API_KEY>", "a-key").replace("<RUNPOD_ENDPOINT_ID>", "local")


def test_all_snippets_are_known_here():
    assert [re.search(r"import runpod\n|LocalWorkflowExecutor|async def|def test_", text)[0] for text in SNIPPETS] == [
        "LocalWorkflowExecutor",
        "import runpod\n",
        "async def",
        "def test_",
    ]


def test_the_first_snippet_runs_as_written(checkout):
    run_script(SNIPPETS[0], cwd=checkout)
    assert len(list((checkout / "out").glob("*.png"))) == 4


def test_the_snippet_for_runpod_runs_as_written(checkout, runpod_emulator):
    run_script(runpod_snippet(), cwd=checkout)
    assert len(list(checkout.glob("*.png"))) == 16
    assert [str(job.state) for job in runpod_emulator.jobs()] == ["COMPLETED"]


def test_the_snippet_for_many_jobs_runs_as_written(checkout, runpod_emulator):
    sync_part = runpod_snippet().partition("image_items =")[0]
    run_script(f"{sync_part}\ngroups = [input_images[:1]] * 16\n{SNIPPETS[2]}", cwd=checkout)
    assert [len(list((checkout / "out" / str(n)).glob("*.png"))) for n in range(16)] == [16] * 16
    assert len(runpod_emulator.jobs()) == 16


def test_the_snippet_for_tests_runs_as_written(checkout):
    (checkout / "my_app.py").write_text(
        textwrap.dedent(
            """
            from runpod_comfy import RunpodComfyWorkflowExecutor
            def make_portraits():
                RunpodComfyWorkflowExecutor().submit_workflow("workflow.json.jinja", ["image1.jpg"]).save("out")
            """
        )
    )
    (checkout / "test_my_app.py").write_text("import my_app\n" + SNIPPETS[3])
    run_script("import sys, pytest; sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider']))", cwd=checkout)


def test_the_template_in_the_readme_renders():
    [text] = blocks("jinja")
    template = WorkflowTemplate.from_string(text)
    graph = template.render(input_images=["rcc/00.png"], batch_size=4)
    assert graph["10"]["inputs"]["image"] == "rcc/00.png"
    assert graph["5"]["inputs"]["batch_size"] == 4
    assert template.render(input_images=["a"], batch_size=1, prompt='"}')["6"]["inputs"]["text"] == '"}'


def test_the_commands_run_as_written(checkout):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    stand_in = ComfyUIStandIn()
    _loop.run_sync(stand_in.start)
    try:
        ran = []
        for command in COMMANDS:
            if not re.search(r"runpod-comfy (run|batch|jobs|example|template)", command):
                continue
            written = command.removeprefix("pip install . && ").replace("http://127.0.0.1:8188", stand_in.url)
            subprocess.run(
                ["bash", "-ec", written], cwd=checkout, env={**os.environ, "PATH": path}, check=True, timeout=100
            )
            ran.append(command.split()[0:2])
    finally:
        _loop.run_sync(stand_in.stop)
    assert len(ran) == 8


def test_every_file_that_the_readme_names_is_there():
    for name in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / name).is_file(), name


def test_it_warns_of_the_package_of_the_same_import_name():
    assert "runpod-comfy-sdk" in README
    assert "must not be installed beside" in README


def test_the_tests_command_is_the_one_that_ci_runs():
    ci = (ROOT / ".ci" / "run").read_text("utf-8")
    install, _, test = next(command for command in COMMANDS if "pytest" in command).partition(" && ")
    assert install.replace("pip install", "pip install --quiet") in ci
    assert f"\n{test.strip()}\n" in ci


@pytest.mark.usefixtures("checkout")
def test_local_runs_need_no_settings_at_all():
    with LocalWorkflowExecutor() as executor:
        assert len(executor.submit_workflow("workflow.json.jinja", ["image1.jpg"])) == 1
