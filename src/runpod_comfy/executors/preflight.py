"""The check before anything is sent, against the node types that were kept for the target."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING

from runpod_comfy.settings import cache_dir, shown_url
from runpod_comfy.workflow.object_info_cache import ObjectInfoCache
from runpod_comfy.workflow.validate import refuse_faulty, validate_workflow

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from runpod_comfy.submission import Submission
    from runpod_comfy.workflow.object_info_cache import KeptObjectInfo
    from runpod_comfy.workflow.validate import Problem

__all__ = ["check_submission", "object_info_cache"]


def object_info_cache() -> ObjectInfoCache:
    """Return the node types that are kept for this user."""
    return _cache_in(cache_dir() / "object_info")


@functools.lru_cache(maxsize=8)
def _cache_in(folder: Path) -> ObjectInfoCache:
    return ObjectInfoCache(folder)


async def check_submission(
    submission: Submission,
    *,
    target: str,
    source: str,
    refresh: Callable[[], Awaitable[KeptObjectInfo | None]] | None = None,
) -> tuple[str, ...]:
    """Check a submission against what is known of its target; without anything known it passes.

    Args:
        submission: What is about to be sent.
        target: The endpoint's id or the server's address.
        source: What problems call the workflow.
        refresh: Asks the target anew, where that costs nothing: models may have come since.

    Returns:
        Warnings, as sentences.

    Raises:
        WorkflowGraphError: The target would refuse it, or leave a part of it out.
    """
    kept = await asyncio.to_thread(object_info_cache().load, target)
    if kept is None:
        return ()
    problems = await asyncio.to_thread(_problems, submission, kept, source)
    if refresh is not None and _has_errors(problems) and (fresh := await refresh()) is not None:
        kept = fresh
        problems = await asyncio.to_thread(_problems, submission, kept, source)
    known = f"{shown_url(target)}, as it was known on {kept.fetched_at[:10]},"
    refuse_faulty(problems, target=known, remedy=_REMEDY)
    return tuple(f"{problem.where}: {problem.message}" for problem in problems if problem.code != "unused_image")


_REMEDY = (
    "Has it changed since? `runpod-comfy describe` asks it anew. To send it anyway: executor.preflight = False, or run "
    "… --no-check."
)


def _problems(submission: Submission, kept: KeptObjectInfo, source: str) -> tuple[Problem, ...]:
    names = [f"{image.subfolder}/{image.name}" if image.subfolder else image.name for image in submission.images]
    return validate_workflow(submission.workflow, kept.info, source=source, input_images=names)


def _has_errors(problems: tuple[Problem, ...]) -> bool:
    return any(problem.severity == "error" for problem in problems)
