"""What the ledger knows to be on disk already, told once more to whoever asks for a job that was read before."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from runpod_comfy.events import OutputReady, Warned
from runpod_comfy.executors.recording import Record
from runpod_comfy.results import Origin, OutputElsewhere, OutputText

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from runpod_comfy.events import Event
    from runpod_comfy.ledger import Ledger, SavedOutput, Submitted
    from runpod_comfy.results import Output

__all__ = ["saved_before"]


def saved_before(ledger: Ledger, rows: Iterable[Submitted]) -> Iterator[Event]:
    """Yield the outputs of submissions that an earlier reader has saved, each file checked. Blocks.

    A file that is not where it was put, or has changed since, is named in a warning.
    """
    missing = []
    for row in rows:
        record = Record(ledger, row.submission_id)
        if not record.taken_over():
            record.place_left_parts()
        for saved in record.outputs():
            try:
                yield OutputReady(output=_told_again(saved, row))
            except (OSError, ValueError):
                missing.append(saved.path or saved.name)
    if missing:
        yield Warned(
            message=f"{len(missing)} file(s) that were saved earlier have moved or changed since, the first of them "
            f"{missing[0]}. They are not in this result, and are not made again."
        )


def _told_again(saved: SavedOutput, row: Submitted) -> Output:
    seeds = dict(zip(row.entry.batches or range(row.entry.batch_count), row.entry.seeds, strict=False))
    seed = None if saved.batch is None else seeds.get(saved.batch)
    origin = Origin(batch=saved.batch, seed=seed, node_id=saved.node_id, line=saved.line)
    if saved.text is not None:
        return OutputText(text=saved.text, origin=origin)
    if saved.path is None:
        raise FileNotFoundError(saved.name)
    path = Path(saved.path)
    folder, _, name = saved.name.rpartition("/")
    known = OutputElsewhere(
        url="", name=name, subfolder=folder or None, size_bytes=saved.size_bytes, sha256=saved.sha256, origin=origin
    )
    return known.with_data(path.read_bytes()).kept_at(path)
