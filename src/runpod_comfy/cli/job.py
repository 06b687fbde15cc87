"""One job from the command line: submitted, watched, saved and reported."""

from __future__ import annotations

import logging
import os
import shlex
import sys
import tempfile
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from runpod_comfy.cli.event_lines import event_data
from runpod_comfy.cli.failures import describe
from runpod_comfy.cli.prices import known_price
from runpod_comfy.cli.progress import Tally, choose_display
from runpod_comfy.cli.targets import make_executor
from runpod_comfy.cli.verbs import COMMAND_NAME
from runpod_comfy.cost import GpuTime, cost_text
from runpod_comfy.errors import ConfigurationError, RunpodComfyError
from runpod_comfy.events import Finished, OutputReady, Queued, Warned
from runpod_comfy.media.files import write_new
from runpod_comfy.results import OutputFile, OutputText, Timings, WorkflowOutputImage
from runpod_comfy.submission import batches_needed
from runpod_comfy.workflow.template import WorkflowTemplate
from runpod_comfy.workflow.validate import refuse_faulty

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from runpod_comfy.cli.failures import Failure
    from runpod_comfy.cli.output import Output
    from runpod_comfy.cli.targets import Target
    from runpod_comfy.events import Event
    from runpod_comfy.executors.request import OnLost, OnUncertain
    from runpod_comfy.results import WorkflowResult

__all__ = ["STAND_IN", "Job", "JobOptions", "log_shown_by"]

STAND_IN = (
    "LOCAL STAND-IN: no endpoint was named. These pictures show what was sent, not what a model would draw.\n"
    "  (--endpoint ID or --comfyui URL makes real ones.)"
)
_LONGEST_NEXT_STEP = 300  # characters: nobody copies a longer command
# The collector repeats events; a worker in this process logs what then arrives as the job's error.
_SILENT_LOGGERS = ("runpod_comfy.executors.collect", "runpod_comfy.worker", "runpod_comfy.emulator")
_SHOWN_TEXT = 200  # characters of a text that a node reported


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """What was asked for on the command line; see ``runpod-comfy run --help``."""

    target: Target
    template: Path | WorkflowTemplate
    images: tuple[Path, ...]
    variables: dict[str, Any]
    num_samples: int
    batch_size: int
    seed: int | None
    output_dir: Path
    timeout_s: float | None
    input_max_pixels: int | None
    previews: bool
    progress: str | None
    object_info: Path | None = None
    no_check: bool = False
    no_ledger: bool = False
    queue_timeout_s: float | None = None
    on_uncertain: OnUncertain = "raise"
    on_lost: OnLost = "rerun"


class Job:
    """One job, and what has happened to it so far."""

    def __init__(self, asked: JobOptions, output: Output) -> None:
        self._asked = asked
        self._output = output
        self._batch_count = batches_needed(asked.num_samples, asked.batch_size)
        self._job_id: str | None = None
        self._images: list[dict[str, Any]] = []
        self._files: list[dict[str, Any]] = []
        self._texts: list[dict[str, Any]] = []
        self._warnings: list[str] = []
        self._result: WorkflowResult | None = None

    def carry_out(self) -> int:
        """Do it all and return the exit code; whatever happens, what arrived is saved and listed."""
        try:
            with log_shown_by(self._output):
                self._run()
        except (RunpodComfyError, OSError, KeyboardInterrupt) as exc:
            self._result = self._result or getattr(exc, "partial", None)
            if self._images or self._files:
                self._output.note(f"  {self._made()} arrived before that, in {self._asked.output_dir}")
            return self._output.fail(self._describe(exc), self._data())
        self._output.note(f"  {self._made()}{self._duration()}")
        self._say_cost()
        self._show_next_step()
        return self._output.succeed(self._data())

    def _run(self) -> None:
        asked = self._asked
        template = asked.template if isinstance(asked.template, WorkflowTemplate) else WorkflowTemplate(asked.template)
        executor = make_executor(asked.target, batch_size=asked.batch_size, ledger=not asked.no_ledger)
        executor.preflight = not asked.no_check
        if asked.object_info is not None and not asked.no_check:
            self._check(template, asked.object_info)
        _check_folder(asked.output_dir)
        self._announce(template)
        display = choose_display(asked.progress, quiet=self._output.quiet)
        tally = Tally(image_count=self._batch_count * asked.batch_size, batch_count=self._batch_count)
        # On one and the same terminal, paths would tear a live line apart.
        with executor, self._output.data_held(hold=display.is_live and sys.stdout.isatty()):
            events = executor.watch_workflow(
                template,
                asked.images,
                asked.num_samples,
                seed=asked.seed,
                variables=asked.variables,
                previews=asked.previews,
                input_max_pixels=asked.input_max_pixels,
                timeout=asked.timeout_s,
                output_dir=asked.output_dir,
                queue_timeout=asked.queue_timeout_s,
                on_uncertain=asked.on_uncertain,
                on_lost=asked.on_lost,
            )
            # Closing the events early, as an interrupt does, cancels the job.
            with closing(cast("Generator[Event]", events)), display, self._output.through(display.write_line):
                for event in events:
                    self._output.event(event_data(event, saved=self._take(event)))
                    tally.add(event)
                    display.update(tally, event)

    def _check(self, template: WorkflowTemplate, object_info: Path) -> None:
        """Check the workflow against node types that were named."""
        from runpod_comfy.cli.check import check_template  # noqa: PLC0415 - few runs name node types
        from runpod_comfy.workflow.object_info import ObjectInfo  # noqa: PLC0415 - likewise

        asked = self._asked
        problems = check_template(
            template,
            ObjectInfo.load(object_info),
            images=asked.images,
            variables=asked.variables,
            batch_size=asked.batch_size,
        )
        refuse_faulty(problems, target=str(object_info))

    def _take(self, event: Event) -> dict[str, Any] | None:
        """Note what an event says; what is listed of an output."""
        match event:
            case Queued(job_id=job_id):
                self._job_id = job_id
            case OutputReady(output=OutputText() as text):
                self._texts.append({"text": text.text, **_origin(text)})
                shown = text.text if len(text.text) <= _SHOWN_TEXT else text.text[:_SHOWN_TEXT] + "…"
                self._output.note(f"  {text.origin.node_title or 'text'}: {shown}")
                return self._texts[-1]
            case OutputReady(output=WorkflowOutputImage() as image):
                return self._save(image, self._images)
            case OutputReady(output=OutputFile() as file):
                return self._save(file, self._files)
            case Warned(message=message):
                self._warnings.append(message)
                self._output.warn(message)
            case Finished(result=result):
                self._result = result
            case _:
                pass
        return None

    def _save(self, file: OutputFile, records: list[dict[str, Any]]) -> dict[str, Any] | None:
        """List a file, which the executor has written as soon as it was here."""
        path = file.path
        if path is None:  # its name leads elsewhere, and a warning has said so
            name = f"unnamed.{file.media_type.rpartition('/')[2] or 'bin'}"
            try:
                path = write_new(self._asked.output_dir / name, file.data)
            except OSError:
                return None  # the disk is full, which is the error that comes next
            self._output.note(f"  It is saved as {path}.")
        records.append(
            {
                "path": os.fspath(path),
                "name": file.name,
                **_origin(file),
                "media_type": file.media_type,
                "size_bytes": file.size_bytes,
                "sha256": file.sha256,
            }
        )
        # Last: an interrupt comes while this waits for whoever reads it.
        self._output.data(os.fspath(path))
        return records[-1]

    def _announce(self, template: WorkflowTemplate) -> None:
        """Say what is about to be sent where; pictures that are not real never come as a surprise."""
        asked = self._asked
        if not asked.target.asked_for:
            self._output.loud(STAND_IN)
        parts = []
        if asked.images:
            size_bytes = sum(path.stat().st_size for path in asked.images if path.is_file())
            parts.append(f"{_count(len(asked.images), 'photo')}, {size_bytes / 1000:,.0f} KB")
        given = ", ".join(sorted(asked.variables))
        parts.append(f"{template.name}" + (f" with {given}" if given else ""))
        parts.append(
            f"{_count(self._batch_count * asked.batch_size, 'image')}"
            + (f" in {self._batch_count} batches of {asked.batch_size}" if self._batch_count > 1 else "")
        )
        self._output.note(f"  {'; '.join(parts)}; on {asked.target}")

    def _describe(self, exc: BaseException) -> Failure:
        failure = describe(exc)
        if isinstance(exc, KeyboardInterrupt) and self._job_id:
            text = f"Interrupted: job {self._job_id} was cancelled."
            return replace(failure, message=text, details={"job_id": self._job_id})
        return failure

    def _made(self) -> str:
        parts = [_count(len(self._images), "image")]
        if self._files:
            parts.append(_count(len(self._files), "file"))
        return " and ".join(parts)

    def _duration(self) -> str:
        timings = self._result.timings if self._result else Timings()
        parts = [
            f"{name} {seconds:.1f} s"
            for name, seconds in (("queue", timings.queue_s), ("execution", timings.execution_s))
            if seconds is not None
        ]
        total = f" in {timings.total_s:.1f} s" if timings.total_s is not None else ""
        return total + (f" ({', '.join(parts)})" if parts else "")

    def _say_cost(self) -> None:
        """Say what it cost at least, where the profile has a price and a worker was paid for."""
        timings = self._result.timings if self._result else Timings()
        price = known_price(None) if self._asked.target.kind == "runpod" else None
        seconds = timings.execution_s or timings.gpu_s
        if price is not None and seconds is not None:
            used = GpuTime(execution_s=seconds, waited_s=timings.queue_s, images=len(self._images))
            self._output.note(f"  cost {cost_text(used, price)}")

    def _data(self) -> dict[str, Any]:
        result = self._result
        return {
            "target": self._asked.target.kind,
            "job_id": self._job_id,
            "images": self._images,
            "files": self._files,
            "texts": self._texts,
            "seeds": list(result.seeds) if result else [],
            "timings": asdict(result.timings if result else Timings()),
            "warnings": self._warnings,
        }

    def _show_next_step(self) -> None:
        seeds = self._result.seeds if self._result else ()
        if self._asked.target.kind == "local":
            self._output.next_step(f"{_same_command(without='--local')} --endpoint <RUNPOD_ENDPOINT_ID>")
        elif self._asked.seed is None and seeds:
            # Drawn seeds do not count up, so one --seed makes one batch again.
            batch = f" -n {self._asked.batch_size}" if len(seeds) > 1 else ""
            self._output.next_step(f"{_same_command()}{batch} --seed {seeds[0]}      # the first batch again")


def _same_command(*, without: str = "") -> str:
    typed = shlex.join([COMMAND_NAME, *(word for word in sys.argv[1:] if word != without)])
    return typed if len(typed) <= _LONGEST_NEXT_STEP else "the same command with"


def _origin(output: OutputFile | OutputText) -> dict[str, Any]:
    origin = output.origin
    return {"seed": origin.seed, "batch": origin.batch, "node_id": origin.node_id}


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _check_folder(folder: Path) -> None:
    """Make the folder and see, before anything is paid for, that files can be written into it.

    Raises:
        ConfigurationError: They cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Trying is the only way to know: a file system may be read-only, or full, or none that files can be put on.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as exc:
        raise ConfigurationError(f"--output-dir {folder}: {exc.strerror or exc}. Name another folder.") from exc


@contextmanager
def log_shown_by(output: Output) -> Iterator[None]:
    """Show what the library logs as a warning; events that are shown anyway are left out."""
    handler = _LogHandler(output)
    logger = logging.getLogger("runpod_comfy")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _LogHandler(logging.Handler):
    def __init__(self, output: Output) -> None:
        super().__init__(logging.WARNING)
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        if not record.name.startswith(_SILENT_LOGGERS):
            self._output.warn(record.getMessage())
