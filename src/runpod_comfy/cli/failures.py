"""What went wrong, as an exit code, a name that scripts can rely on, and a text for people.

=====  =========================================================================
code   meaning
=====  =========================================================================
0      done
1      the job failed, or a server did
2      usage: a wrong argument, template, workflow or input; nothing was sent
3      credentials: no API key, or one that is not accepted
4      time-out
130    interrupted by Ctrl-C, after the job was cancelled (143: SIGTERM)
=====  =========================================================================
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from typing import Any

import click

from runpod_comfy import errors

__all__ = ["Failure", "Interrupted", "MissingKey", "describe"]


class Interrupted(KeyboardInterrupt):
    """A signal other than Ctrl-C's asked the process to end.

    Attributes:
        number: The signal.
    """

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__()
        self.number = number


class MissingKey(errors.ConfigurationError):
    """There is no usable API key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A failure as the command reports it.

    Attributes:
        exit_code: The process's exit code.
        code: A stable name, such as ``template_error``.
        message: What happened and what to do, for people.
        details: Ids and places, by name.
        hint: What to do next in the command's own words, or None.
    """

    exit_code: int
    code: str
    message: str
    details: dict[str, Any] = field(default_factory=dict)
    hint: str | None = None


# The first class that fits decides.
_EXIT_CODES: tuple[tuple[type[errors.RunpodComfyError], int], ...] = (
    (MissingKey, 3),
    (errors.AuthenticationError, 3),
    (errors.WaitTimeout, 4),
    (errors.JobTimedOut, 4),
    (errors.ConfigurationError, 2),
    (errors.TemplateError, 2),
    (errors.WorkflowGraphError, 2),
    (errors.InputError, 2),
    (errors.RunpodComfyError, 1),
)
_DETAILS = (
    "job_id",
    "endpoint_id",
    "submission_id",
    "status_code",
    "node_id",
    "node_type",
    "traceback",
    "template",
    "line",
    "column",
    "missing",
    "size_bytes",
    "limit_bytes",
)
_KEY_HINT = "export RUNPOD_API_KEY=<KEY>   (--local needs no key)"


def describe(exc: BaseException) -> Failure:
    """Return what an exception means to whoever started the command."""
    match exc:
        case errors.RunpodComfyError():
            return Failure(
                exit_code=next(code for kind, code in _EXIT_CODES if isinstance(exc, kind)),
                code=exc.code,
                message=str(exc),
                details={name: value for name in _DETAILS if (value := getattr(exc, name, None))},
                hint=_KEY_HINT if isinstance(exc, MissingKey) else None,
            )
        case click.ClickException():
            asked = exc.ctx.command_path if isinstance(exc, click.UsageError) and exc.ctx else None
            return Failure(
                exit_code=2,
                code="usage",
                message=exc.format_message(),
                hint=f"{asked} --help" if asked else None,
            )
        case KeyboardInterrupt():
            number = exc.number if isinstance(exc, Interrupted) else signal.SIGINT
            return Failure(exit_code=128 + number, code="interrupted", message="Interrupted.")
        case OSError():
            return Failure(exit_code=1, code="file_error", message=_os_error(exc))
        case _:
            return Failure(exit_code=1, code="aborted", message="Aborted.")


def _os_error(exc: OSError) -> str:
    where = f"{exc.filename}: " if exc.filename else ""
    return f"{where}{exc.strerror or exc}"
