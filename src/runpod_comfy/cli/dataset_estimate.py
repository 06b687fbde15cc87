"""The part of a dataset's plan that tells what it takes: seconds, money, disk."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from runpod_comfy.dataset.estimate import bytes_per_image, estimate, seconds_per_image
from runpod_comfy.errors import RunpodComfyError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from runpod_comfy.cli.targets import Target
    from runpod_comfy.dataset.estimate import Estimate
    from runpod_comfy.dataset.manifest import TaskRecord

__all__ = ["estimate_lines"]

_JOBS_LOOKED_AT = 200


def estimate_lines(
    images: int,
    tasks: Mapping[str, TaskRecord],
    *,
    root: Path,
    target: Target,
    template_name: str,
    price_per_hour_usd: float | None,
) -> list[str]:
    """Return the lines of a plan that tell what its images take.

    Args:
        images: How many there are to make.
        tasks: What the folder's manifest says; its jobs are the best measure, and then those in the ledger.
        root: The folder.
        target: Where they will be made.
        template_name: What of.
        price_per_hour_usd: What a worker costs, or None.
    """
    found, source = _estimated(images, tasks, target, template_name)
    lines = ["  estimate   not known: there is no earlier job to go by"]
    if found is not None:
        cost = ""
        if price_per_hour_usd is not None:
            low, high = found.cost_usd(price_per_hour_usd)
            cost = f", ${low:,.2f} - ${high:,.2f} at ${price_per_hour_usd:g}/h for that alone"
        lines = [f"  estimate   {found.low_s:,.0f} - {found.high_s:,.0f} s of execution{cost}; by {source}"]
    if (size := bytes_per_image(tasks.values())) is not None:
        lines.append(f"  disk       about {_size(size * images)} more, {_size(_free_bytes(root))} free")
    return lines


def _estimated(
    images: int, tasks: Mapping[str, TaskRecord], target: Target, template_name: str
) -> tuple[Estimate | None, str]:
    if (found := estimate(images, seconds_per_image(tasks))) is not None:
        return found, f"{found.job_count:,} jobs of this folder"
    if target.kind != "runpod" or (found := estimate(images, _seconds_in_ledger(target, template_name))) is None:
        return None, ""
    return found, f"{found.job_count:,} earlier jobs of this template and endpoint"


def _seconds_in_ledger(target: Target, template_name: str) -> list[float]:
    from runpod_comfy.cli.jobs import open_own_ledger  # noqa: PLC0415 - loads a database
    from runpod_comfy.ledger import State  # noqa: PLC0415 - likewise

    try:
        ledger = open_own_ledger()
    except RunpodComfyError:
        return []
    try:
        rows = ledger.submissions([State.DONE], endpoint_id=target.name, limit=_JOBS_LOOKED_AT)
    finally:
        ledger.close()
    return [
        row.gpu_s / (row.entry.batch_count * row.entry.recipe.batch_size)
        for row in rows
        if row.gpu_s and row.entry.template_name == template_name
    ]


def _free_bytes(root: Path) -> int:
    there = next(each for each in (root, *root.resolve().parents) if each.exists())
    return shutil.disk_usage(there).free


def _size(count: float) -> str:
    for unit in ("bytes", "KB", "MB", "GB"):
        if count < 1000:  # noqa: PLR2004 - as disks are sold
            return f"{count:.0f} {unit}" if unit in {"bytes", "KB"} else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
