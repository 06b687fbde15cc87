"""What a check found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Finding", "State", "fault", "fine", "skipped", "verdict"]

State: TypeAlias = Literal["ok", "fault", "skipped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check found.

    Attributes:
        check: What was looked at, in one word that stays the same.
        state: ``ok``, ``fault`` for what keeps jobs from running, or ``skipped`` for what was not looked at.
        text: What was seen; of a fault its cause.
        fix: The command that mends a fault, or what to do where no command can; None for the rest.
    """

    check: str
    state: State
    text: str
    fix: str | None = None


def fine(check: str, text: str) -> Finding:
    """Return a finding of nothing wrong."""
    return Finding(check=check, state="ok", text=text)


def fault(check: str, text: str, fix: str) -> Finding:
    """Return a finding of something that keeps jobs from running."""
    return Finding(check=check, state="fault", text=text, fix=fix)


def skipped(check: str, text: str) -> Finding:
    """Return a finding of what was not looked at, and why."""
    return Finding(check=check, state="skipped", text=text)


def verdict(findings: Iterable[Finding]) -> str:
    """Say in one line whether everything is ready.

    >>> verdict([fine("key", "accepted"), fault("ledger", "cannot be written", "rm -r x")])
    '1 thing to fix. Everything else is ready.'
    """
    faults = sum(each.state == "fault" for each in findings)
    if not faults:
        return "Everything is ready."
    return f"{faults} thing{'' if faults == 1 else 's'} to fix. Everything else is ready."
