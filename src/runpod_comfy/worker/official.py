"""The worker in place of RunPod's official one: the same requests, the same shapes of answers.

A handler of this kind answers once, at its end: nothing streams. What the official worker does badly is mended where
its shapes allow it: an answer always fits, what was made before a failure is delivered, outputs of every kind come
home, a cancelled job leaves ComfyUI's queue, and a dead ComfyUI is noticed.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, TypeAlias

from runpod_comfy.dialects.worker_comfyui_answer import (
    UPLOAD_FAILED,
    Answer,
    answer_limit,
    failure_text,
    is_node_failure,
    read_input,
)
from runpod_comfy.errors import InputError, RunpodComfyError
from runpod_comfy.events import OutputReady
from runpod_comfy.results import OutputFile, OutputText
from runpod_comfy.worker.describe import wants_description
from runpod_comfy.workflow.graph import check_graph

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from runpod_comfy.events import Event
    from runpod_comfy.submission import Submission
    from runpod_comfy.worker.machine import Machine
    from runpod_comfy.worker.surroundings import OutputStore

__all__ = ["OfficialHandler", "official_handler"]

logger = logging.getLogger(__name__)

OfficialHandler: TypeAlias = "Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]"


def official_handler(machine: Machine) -> OfficialHandler:
    """Return a handler that answers as worker-comfyui 5.x does. It never raises, except when it is cancelled."""

    async def handler(job: dict[str, Any]) -> dict[str, Any]:
        job_id, body = str(job.get("id")), job.get("input")
        try:
            if wants_description(body):
                return {"describe": await machine.describe(body)}
            read = await _read(machine, read_input(body))
            return read if isinstance(read, dict) else await _run(machine, job, read)
        except RunpodComfyError as exc:
            logger.warning("job %s: %s", job_id, exc)
            return {"error": failure_text(exc)}
        except Exception as exc:
            logger.exception("job %s: the worker failed", job_id)
            return {"error": f"An unexpected error occurred: {type(exc).__name__}. The worker's log has the details."}

    return handler


async def _read(machine: Machine, body: dict[str, Any]) -> Submission | dict[str, Any]:
    """Return what is asked for, or the answer that says which images cannot be used."""
    if isinstance(body["workflow"], dict):
        check_graph(body["workflow"])  # else what is wrong with it would pass for an image's fault
    try:
        return await machine.read(body)
    except InputError as exc:
        if not body.get("images"):
            raise
        return {"error": UPLOAD_FAILED, "details": [failure_text(exc)]}


async def _run(machine: Machine, job: dict[str, Any], submission: Submission) -> dict[str, Any]:
    job_id = str(job.get("id"))
    answer = Answer(answer_limit(job_id))
    store = await asyncio.to_thread(machine.open_store, job) if machine.open_store is not None else None

    async def tell(event: Event) -> None:
        match event:
            case OutputReady(output=OutputFile() as output):
                await _add(answer, output, store)
            case OutputReady(output=OutputText(text=text)):
                answer.add_text(text)

    try:
        await machine.run(submission, tell)
    except RunpodComfyError as exc:
        if answer.empty and not is_node_failure(exc):
            raise  # refused, or ComfyUI is gone: there is one reason and nothing else to tell
        logger.warning("job %s: %s", job_id, exc)
        answer.errors.append(failure_text(exc))
    return answer.result()


async def _add(answer: Answer, output: OutputFile, store: OutputStore | None) -> None:
    url = None
    if store is not None:
        name = f"{output.subfolder}/{output.name}" if output.subfolder else output.name
        try:
            url = await asyncio.to_thread(store.put, name, output.data, media_type=output.media_type)
        except RunpodComfyError as exc:
            logger.warning("%s goes into the answer, since it could not be stored: %s", name, exc)
    await asyncio.to_thread(answer.add_file, output, url=url)
