"""Every block of every page runs, in the page's order, and gives what the page shows.

A block that cannot run here says why in a comment above it: `<!-- not run: needs an account -->`. A block with a title
is a file of that name; one that is titled `output` is what the block of Python above it prints.
"""

import contextlib
import glob
import io
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

from runpod_comfy import _loop
from runpod_comfy.cli.verbs import run_command
from runpod_comfy.emulator.comfyui import ComfyUIStandIn

pytestmark = pytest.mark.one_python

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
LANGUAGES = {"console", "bash", "python", "text", "json", "yaml", "toml", "csv", "jinja", "dockerfile"}
BLOCK = re.compile(
    r'^(?:<!-- not run: (?P<reason>[^\n]{10,}) -->\n)?```(?P<language>\w*)(?: title="(?P<title>[^"\n]+)")?\n'
    r"(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
_SHELL = re.compile(r"[|;&<>$`]|^(?!runpod-comfy )")


def commands(text):
    """The commands of a console block, each with the output that is shown under it."""
    found = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append([line[2:], []])
        elif found and found[-1][0].endswith("\\"):
            found[-1][0] = f"{found[-1][0][:-1]} {line.strip()}"
        else:
            found[-1][1].append(line)
    return found


def _words(command):
    """A command's words; unlike in shlex, a comment begins a word, and `out#000123` is one word."""
    return shlex.split(re.sub(r"\s# .*", "", command))


class Reader:
    """Carries out the blocks of one page; what a page calls by a name of the reader's own is replaced."""

    def __init__(self, replaced):
        self._replaced = replaced
        self._names = {"__name__": "__main__"}
        self._printed = ""

    def do(self, block):
        text = block["text"]
        if block["title"] == "output":
            self._compare(text.splitlines(), self._printed)
        elif block["title"]:
            Path(block["title"]).write_text(self._mine(text), "utf-8")
        elif block["language"] == "python":
            self._printed = self._captured(lambda: exec(self._mine(text), self._names))[1]  # noqa: S102 - the page is ours
        elif block["language"] == "bash":
            assert self._bash(self._mine(text))[0] == 0
        elif block["language"] == "console":
            for command, shown in commands(text):
                self._type(self._mine(command), shown)

    def _mine(self, text):
        """Put the reader's own in the place of what a page cannot know."""
        text = self._as_shown(text.replace("<ENDPOINT_ID>", "4m7x2k9q"))
        return re.sub(r"<([A-Z_]+)>", lambda found: found[1].lower(), text)

    def _as_shown(self, text):
        for written, mine in self._replaced.items():
            text = text.replace(written, mine)
        return text

    def _type(self, command, shown):
        if command.startswith("export "):
            os.environ.update(word.split("=", 1) for word in _words(command)[1:])
            return
        code, out = self._bash(command) if _SHELL.search(command) else self._in_process(command)
        assert (code != 0) == any(line.startswith("Error") for line in shown), f"{command}\n{out}"
        if shown:
            self._compare(shown, out)

    def _in_process(self, command):
        words = [
            name
            for word in _words(command)
            for name in (sorted(glob.glob(word)) or [word])  # noqa: PTH207 - as a shell does it
        ]
        sys.argv = words
        return self._captured(lambda: run_command(words[1:]))

    def _bash(self, script):
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-ec", script],
            env={**os.environ, "PATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=100,
            check=False,
        )
        return done.returncode, done.stdout

    def _captured(self, work):
        written = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
        with contextlib.redirect_stdout(written), contextlib.redirect_stderr(written):
            result = work()
        return result, written.buffer.getvalue().decode("utf-8")

    def _compare(self, shown, out):
        """Hold the output against what the page shows; `…` stands for anything."""
        lines = self._as_shown("\n".join(line.rstrip() for line in shown).strip())
        pattern = ".*?".join(map(re.escape, lines.split("…")))
        got = "\n".join(line.rstrip() for line in out.strip().splitlines())
        assert re.fullmatch(pattern, got, re.DOTALL), f"The page shows:\n{lines}\n\nand this came:\n{got}"


@pytest.fixture
def reader(tmp_path, monkeypatch, runpod_emulator):
    """A reader with an endpoint `4m7x2k9q`, a ComfyUI on port 8188, a workflow that ComfyUI saved, and two photos."""
    assert runpod_emulator.settings.endpoint_id == "local"
    for name in ("RUNPOD_API_KEY", "RUNPOD_ENDPOINT_ID"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("RUNPOD_COMFY_CONFIG", str(tmp_path / "settings" / "config.toml"))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "argv", sys.argv)
    folder = tmp_path / "here"
    folder.mkdir()
    shutil.copy(ROOT / "tests" / "data" / "saved_workflow.json", folder / "my_workflow.json")
    for name, photo in (("me.jpg", "astronaut.jpg"), ("cat.jpg", "chelsea.jpg")):
        shutil.copy(ROOT / "examples" / "portrait" / photo, folder / name)
    trustme.CA().cert_pem.write_to_path(folder / "lab-ca.pem")
    monkeypatch.chdir(folder)
    environment = dict(os.environ)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    stand_in = ComfyUIStandIn()
    _loop.run_sync(stand_in.start)
    yield Reader({"http://127.0.0.1:8188": stand_in.url, "4m7x2k9q": "local"})
    _loop.run_sync(stand_in.stop)
    os.environ.clear()
    os.environ.update(environment)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_a_page_does_what_it_says(page, request):
    text = page.read_text("utf-8")
    blocks = list(BLOCK.finditer(text))
    assert {block["language"] for block in blocks} <= LANGUAGES
    assert text.count("```") == 2 * len(blocks), "a block that was not understood"
    here = [block for block in blocks if not block["reason"] and block["language"] != "text"]
    if here:
        reader = request.getfixturevalue("reader")
        for block in blocks:
            if not block["reason"]:
                reader.do(block)
