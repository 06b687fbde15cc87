"""What a job brings, on its way to the folder and into the ledger: nothing twice, and nothing half.

An output becomes a file in steps that a kill may fall between: its bytes go to a hidden file; the ledger notes them,
and the line that brought them, in one transaction; the file gets its name; the ledger notes that. A reader who comes
later knows from the ledger which lines are here, and gives the hidden files their names.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from runpod_comfy.dialects.numbered import Line
from runpod_comfy.errors import InputError, RunpodComfyError
from runpod_comfy.events import BatchFinished, OutputReady, Progress, Warned
from runpod_comfy.ledger import SavedOutput
from runpod_comfy.media.files import publish, safe_output_path, write_new, write_part
from runpod_comfy.results import OutputElsewhere, OutputFile, OutputText

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from runpod_comfy.dialects.base import Heard
    from runpod_comfy.events import Event
    from runpod_comfy.executors.recording import Record
    from runpod_comfy.executors.shelf import Shelf
    from runpod_comfy.serverless.api import JobStatus

__all__ = ["Filed", "Filing", "OutputKey", "key_of"]


class OutputKey(NamedTuple):
    """What tells an output of a batch from its others: where it was made, and what it is."""

    batch: int | None
    node_id: str | None
    sha256: str


def key_of(output: OutputFile | OutputText) -> OutputKey:
    """Return an output's key."""
    sha256 = output.sha256 if isinstance(output, OutputFile) else f"text {output.text}"
    return OutputKey(output.origin.batch, output.origin.node_id, sha256)


def _by_bytes(sha256: str) -> OutputKey:
    """Return the key of an output of which only that is known."""
    return OutputKey(None, None, sha256)


@dataclass(slots=True)
class Filed:
    """What some pieces brought, and what kept the rest of them from being read, if anything did."""

    events: list[Heard] = field(default_factory=list)
    error: Exception | None = None
    complete: bool = False

    def told(self) -> Iterator[Heard]:
        """Yield the events, then raise the error."""
        yield from self.events
        if self.error is not None:
            raise self.error


@dataclass(slots=True)
class Filing:
    """One job's outputs on their way; used by one thread at a time.

    Args:
        shelf: The folder they go to, or None to keep them in memory.
        record: The job's page in the ledger, or None.
        made: Outputs that are here from an earlier job of the same batches: each is passed over once.
        batches: The numbers that this job's batches have in the first job, where it makes lost ones again.
        batch_count: How many the first job has, likewise.
    """

    shelf: Shelf | None = None
    record: Record | None = None
    made: Counter[OutputKey] = field(default_factory=Counter)
    batches: tuple[int, ...] | None = None
    batch_count: int = 0
    _filed: Counter[OutputKey] = field(default_factory=Counter)

    def made_so_far(self) -> Counter[OutputKey]:
        """Return the keys of what is here, from this reader and earlier ones. Blocks."""
        return self._filed if self.record is None else self._filed | self.record.made()

    async def ended(self, status: JobStatus) -> None:
        """Note in the ledger how long the job waited and ran, once it has ended."""
        if self.record is not None and status.final:
            await self.record.timed(status)

    def pick_up(self) -> Sequence[Line]:
        """Return the numbered lines that are here for good from an earlier reader of the job. Blocks.

        Outputs of a worker that does not number its lines will come once more: they are known by their bytes.
        """
        if self.record is None:
            return ()
        self.made += Counter(_by_bytes(each.sha256) for each in self.record.outputs() if each.line is None)
        return self.record.lines()

    def file_fetched(self, event: OutputReady) -> Filed:
        """Put away an output that was in a bucket and is fetched now. Blocks; never raises."""
        arrived: list[Line] = []

        def bring() -> Iterator[Event]:
            yield event
            if event.output.origin.line is not None:
                arrived.append(Line(event.output.origin.line, event.output.origin.batch))

        return self.file(bring(), arrived)

    def file(self, events: Iterable[Heard], arrived: list[Line]) -> Filed:
        """Take events as they are read and put away what they hold. Blocks; never raises.

        Args:
            events: They are read one by one, so that no more than one output's bytes is in memory.
            arrived: The reader's list of numbered lines, which grows meanwhile.
        """
        filed = Filed()
        first = len(arrived)
        pending: list[_Pending] = []
        unsaved: set[int | None] = set()
        try:
            for event in events:
                self._take(self._renumbered(event), filed, pending, unsaved)
        except Exception as exc:  # noqa: BLE001 - told after the events that came before it
            filed.error = exc
        try:
            self._settle(filed, pending, [line for line in arrived[first:] if line.seq not in unsaved])
        except Exception as exc:  # noqa: BLE001 - likewise
            filed.error = filed.error or exc
        return filed

    def _take(self, event: Heard, filed: Filed, pending: list[_Pending], unsaved: set[int | None]) -> None:
        if isinstance(event, OutputElsewhere):
            unsaved.add(event.origin.line)  # until it is fetched
        if not isinstance(event, OutputReady):
            filed.events.append(event)
            return
        key = key_of(event.output)
        if self._was_made(key):
            return
        self._filed[key] += 1
        output = event.output
        if isinstance(output, OutputText) or self.shelf is None:
            filed.events.append(event)
            if self.record is not None and isinstance(output, OutputText):
                pending.append(_Pending(_saved(output)))
            elif self.record is not None:
                unsaved.add(output.origin.line)
            return
        try:
            path = safe_output_path(self.shelf.folder, output.name, output.subfolder)
        except InputError as exc:
            text = f"{exc} The output was not written to {self.shelf.folder}; its bytes are in .data."
            filed.events += (event, Warned(message=text))
            unsaved.add(output.origin.line)
            return
        try:
            if self.record is None:
                # Not synced: thousands of files would take minutes on a slow disk.
                filed.events.append(OutputReady(output=output.kept_at(write_new(path, output.data, synced=False))))
            else:
                part = write_part(path, output.data)
                pending.append(_Pending(_saved(output, part), len(filed.events), path, part))
                filed.events.append(OutputReady(output=output.kept_at(part)))
        except OSError as exc:
            filed.events.append(event)
            unsaved.add(output.origin.line)
            raise self._unwritten(exc) from exc

    def _was_made(self, key: OutputKey) -> bool:
        for known in (key, _by_bytes(key.sha256)):
            if self.made[known] > 0:
                self.made[known] -= 1
                return True
        return False

    def _settle(self, filed: Filed, pending: list[_Pending], lines: list[Line]) -> None:
        """Note in the ledger what is on disk now, and give the files their names."""
        if self.record is None or not (pending or lines):
            return
        numbers, taken_over = self.record.keep(lines, [each.saved for each in pending])
        placed: list[tuple[int, str]] = []
        error: OSError | None = None
        gone: list[int] = []
        for each, number in zip(pending, numbers, strict=True):
            if each.part is None or each.path is None:
                continue
            if number is None:  # another reader has saved this very line
                each.part.unlink(missing_ok=True)
                gone.append(each.index)
                continue
            try:
                path = publish(each.part, each.path)
            except OSError as exc:
                error = error or exc
                continue
            placed.append((number, str(path.absolute())))
            event = filed.events[each.index]
            if isinstance(event, OutputReady) and isinstance(event.output, OutputFile):
                filed.events[each.index] = OutputReady(output=event.output.kept_at(path))
        for index in reversed(gone):
            del filed.events[index]
        self.record.placed(placed)
        if error is not None:
            raise self._unwritten(error) from error
        if taken_over is not None:
            raise taken_over

    def _unwritten(self, exc: OSError) -> RunpodComfyError:
        folder = self.shelf.folder if self.shelf else "its folder"
        return RunpodComfyError(
            f"An output could not be written to {folder}: {exc.strerror or exc}. Make room, or choose another "
            "output_dir=."
        )

    def _renumbered(self, event: Heard) -> Heard:
        """Give an event of a rerun the number that its batch has in the first job."""
        match event:
            case OutputReady(output=output) if self.batches is not None:
                origin = replace(output.origin, batch=self._maybe_first(output.origin.batch))
                moved = output.but(origin=origin) if isinstance(output, OutputFile) else replace(output, origin=origin)
                return OutputReady(output=moved)
            case BatchFinished() | Progress() if self.batches is not None:
                return replace(event, batch=self.first_number(event.batch), batch_count=self.batch_count)
            case _:
                return event

    def first_number(self, batch: int) -> int:
        """Return the number that a batch of this job has in the first one."""
        return self.batches[batch] if self.batches is not None and 0 <= batch < len(self.batches) else batch

    def _maybe_first(self, batch: int | None) -> int | None:
        return None if batch is None else self.first_number(batch)


@dataclass(frozen=True, slots=True)
class _Pending:
    """An output whose bytes are in a hidden file, or a text: to be noted in the ledger."""

    saved: SavedOutput
    index: int = -1
    path: Path | None = None
    part: Path | None = None


def _saved(output: OutputFile | OutputText, part: Path | None = None) -> SavedOutput:
    origin: dict[str, Any] = {
        "batch": output.origin.batch,
        "node_id": output.origin.node_id,
        "line": output.origin.line,
    }
    if isinstance(output, OutputText):
        return SavedOutput(name="", sha256="", size_bytes=0, text=output.text, **origin)
    name = f"{output.subfolder}/{output.name}" if output.subfolder else output.name
    # Whoever reads it next may be in another folder.
    kept_in = None if part is None else str(part.absolute())
    return SavedOutput(name=name, sha256=output.sha256, size_bytes=output.size_bytes, part=kept_in, **origin)
