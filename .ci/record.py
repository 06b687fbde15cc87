"""Record what `batch` shows in a real terminal: `python .ci/record.py` draws docs/img/progress.svg anew.

The terminal is tmux; its screen is taken when half of the images are there. Behind the command is the emulator, whose
ComfyUI takes some time for each node.
"""

import io
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from runpod_comfy import _loop
from runpod_comfy.emulator.comfyui import ComfyUIStandIn
from runpod_comfy.executors.local import LocalRunpod

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "img" / "progress.svg"
COMMAND = (
    "runpod-comfy batch portrait/workflow.json.jinja products.csv --grid cfg=3,5 --samples 4 -o mugs --price 1.10 "
    "--endpoint local"
)
UNTIL = r"2\d/40 images"
PRODUCTS = """\
id,prompt,image,shelf
88-412,a red mug on a table,portrait/astronaut.jpg,A
88-413,a blue mug on a table,portrait/chelsea.jpg,B
88-414,a mug in the snow,portrait/astronaut.jpg,A
88-415,a mug on a desk,portrait/astronaut.jpg,A
88-416,two mugs,portrait/chelsea.jpg,B
"""
_COLUMNS, _LINES, _WAIT_S, _SECONDS_PER_NODE = 96, 24, 60, 0.05


def tmux(*words: str) -> str:
    """Run a tmux of our own and return what it printed."""
    command = ["tmux", "-L", "runpod-comfy-record", *words]
    return subprocess.run(command, check=True, text=True, capture_output=True).stdout


def screen(command: str, until: str, folder: Path) -> str:
    """Return the terminal's screen, colours and all, once `until` is on it."""
    tmux("new-session", "-d", "-c", str(folder), "-x", str(_COLUMNS), "-y", str(_LINES), f"{command}; sleep 5")
    shown = ""
    try:
        give_up = time.monotonic() + _WAIT_S
        while time.monotonic() < give_up:
            shown = tmux("capture-pane", "-p", "-e")
            if re.search(until, shown):
                return shown.rstrip()
            time.sleep(0.05)
    finally:
        tmux("kill-server")
    raise SystemExit(f"{until!r} was never on the screen:\n{shown}")


def drawn(command: str, shown: str) -> str:
    """Return the command and its screen as SVG; the font is whatever the reader has."""
    console = Console(record=True, width=_COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.assemble(("$ ", "bold green"), (command, "bold"), "\n", Text.from_ansi(shown)))
    svg = console.export_svg(title="runpod-comfy", theme=MONOKAI)
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)


def main() -> None:
    """Record and draw."""
    comfyui = ComfyUIStandIn(seconds_per_node=_SECONDS_PER_NODE)
    _loop.run_sync(comfyui.start)
    runpod = LocalRunpod(comfyui_url=comfyui.url)
    _loop.run_sync(runpod.start)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(ROOT / "examples" / "portrait", folder / "portrait")
        (folder / "products.csv").write_text(PRODUCTS, "utf-8")
        for variable in ("CI", "NO_COLOR", "RUNPOD_ENDPOINT_ID"):
            os.environ.pop(variable, None)
        os.environ.update(
            RUNPOD_ENDPOINT_BASE_URL=runpod.settings.base_url,
            RUNPOD_API_KEY=runpod.settings.api_key,
            RUNPOD_COMFY_CONFIG=str(folder / "config.toml"),
            RUNPOD_COMFY_LEDGER=str(folder / "jobs.sqlite"),
        )
        shown = screen(shlex.join(shlex.split(COMMAND)), UNTIL, folder)
        PICTURE.write_text(drawn(COMMAND, shown), "utf-8")
        while not all(job.state.is_final for job in runpod.jobs()):
            time.sleep(0.2)  # the end of its terminal makes the command cancel them
    _loop.run_sync(runpod.stop)
    _loop.run_sync(comfyui.stop)


if __name__ == "__main__":
    main()
