"""The command ``runpod-comfy``: data on stdout, everything else on stderr.

``verbs`` lists the verbs and loads each when it is used: ``run`` (over ``arguments``, ``targets``, ``job`` and
``progress``), ``example``, ``emulator``. ``output`` writes, ``failures`` turns errors into exit codes. Nothing is
imported before it is needed: ``--help`` has to feel instant.
"""

from __future__ import annotations

import gc
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

__all__ = ["COMPLETE_VARIABLE", "main"]

COMPLETE_VARIABLE = "_RUNPOD_COMFY_COMPLETE"
"""A shell sets it when it wants to know what could come next."""


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command and end the process with its exit code.

    Args:
        args: What follows the command's name; None takes ``sys.argv``.
    """
    if COMPLETE_VARIABLE in os.environ:
        gc.disable()  # somebody waits for the answer, and collecting garbage takes a twentieth of its tenth of a second
    try:
        from runpod_comfy.cli.verbs import run_command  # noqa: PLC0415 - an interrupt while importing is one like others

        code = run_command(args)
    except KeyboardInterrupt:
        # As `failures` has it, which may be what was being imported.
        sys.stderr.write("Error: Interrupted.\n")
        code = 130
    sys.exit(code)
