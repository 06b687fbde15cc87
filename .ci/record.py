"""Record what a command shows in a real terminal, as a picture for docs/.

`python .ci/record.py PICTURE UNTIL COMMAND…`: the screen of a tmux is taken when the pattern UNTIL is on it.
"""

import io
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

_COLUMNS, _LINES, _WAIT_S = 96, 24, 60
_SESSION = "runpod-comfy-record"


def tmux(*words: str) -> str:
    """Run tmux and return what it printed."""
    return subprocess.run(["tmux", "-L", _SESSION, *words], check=True, text=True, capture_output=True).stdout  # noqa: S607 - whichever is there


def screen(command: str, until: str) -> str:
    """Return the terminal's screen, colours and all, once `until` is on it."""
    tmux("new-session", "-d", "-x", str(_COLUMNS), "-y", str(_LINES), f"{command}; sleep 5")
    try:
        give_up = time.monotonic() + _WAIT_S
        while time.monotonic() < give_up:
            shown = tmux("capture-pane", "-p", "-e")
            if re.search(until, shown):
                return shown.rstrip()
            time.sleep(0.05)
        raise SystemExit(f"{until!r} was never on the screen:\n{shown}")
    finally:
        tmux("kill-server")


def main(picture: str, until: str, *words: str) -> None:
    """Write the picture."""
    command = shlex.join(words)
    shown = Text.assemble(("$ ", "bold green"), (command, "bold"), "\n", Text.from_ansi(screen(command, until)))
    console = Console(record=True, width=_COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(shown)
    drawn = console.export_svg(title="runpod-comfy", theme=MONOKAI)
    # Its font is on a server: what is installed will do.
    drawn = re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL)
    Path(picture).write_text(drawn, "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
