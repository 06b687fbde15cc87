"""What an export was asked for, and what it did."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runpod_comfy.export.placing import Placing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["Request", "Result"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """How a dataset is exported.

    Attributes:
        target: The folder to make.
        placing: How files get there.
        strip_inputs: Say nothing of the rows but what the template was given.
        on_image: Called after each image.
    """

    target: Path
    placing: Placing = field(default_factory=Placing)
    strip_inputs: bool = False
    on_image: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What was made.

    Attributes:
        path: What to open: a folder or a file.
        images: How many images.
        warnings: What should be known, as sentences.
        next_step: The command that probably comes next, or None.
    """

    path: Path
    images: int
    warnings: tuple[str, ...] = ()
    next_step: str | None = None
