"""The command ``runpod-comfy``: data on stdout, everything else on stderr.

``verbs`` lists the verbs and loads each when it is used: ``run`` (over ``arguments``, ``targets``, ``job`` and
``progress``), ``example``, ``emulator``. ``output`` writes, ``failures`` turns errors into exit codes. Nothing is
imported before it is needed: ``--help`` has to feel instant.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

__all__ = ["main"]


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command and end the process with its exit code.

    Args:
        args: What follows the command's name; None takes ``sys.argv``.
    """
    try:
        from runpod_comfy.cli.verbs import run_command  # noqa: PLC0415 - an interrupt while importing is one like others

        code = run_command(args)
    except KeyboardInterrupt:
        # As `failures` has it, which may be what was being imported.
        sys.stderr.write("Error: Interrupted.\n")
        code = 130
    sys.exit(code)
