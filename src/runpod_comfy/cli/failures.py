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
from dataclasses import dataclass, field, replace
from typing import Any

import click

from runpod_comfy import errors

__all__ = ["Failure", "Interrupted", "MissingKey", "describe", "failure"]


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

    code = "missing_key"


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
                exit_code=_exit_code(exc.code),
                code=exc.code,
                message=str(exc),
                details={name: value for name in _DETAILS if (value := getattr(exc, name, None))},
                hint=_KEY_HINT if isinstance(exc, MissingKey) else None,
            )
        case click.ClickException():
            asked = exc.ctx.command_path if isinstance(exc, click.UsageError) and exc.ctx else None
            return failure("usage", exc.format_message(), hint=f"{asked} --help" if asked else None)
        case KeyboardInterrupt():
            number = exc.number if isinstance(exc, Interrupted) else signal.SIGINT
            return replace(failure("interrupted", "Interrupted."), exit_code=128 + number)
        case OSError():
            return failure("file_error", _os_error(exc))
        case _:
            return failure("aborted", "Aborted.")


def failure(code: str, message: str, *, hint: str | None = None, **details: Any) -> Failure:
    """Return a failure that the command itself reports, under one of ``error_codes``."""
    return Failure(exit_code=_exit_code(code), code=code, message=message, hint=hint, details=details)


def _exit_code(code: str) -> int:
    from runpod_comfy.error_codes import CODES  # noqa: PLC0415 - most commands go well

    return CODES[code].exit_code


def _os_error(exc: OSError) -> str:
    where = f"{exc.filename}: " if exc.filename else ""
    return f"{where}{exc.strerror or exc}"
