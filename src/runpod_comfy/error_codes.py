"""Every code that ``--json`` can carry, with what it means and what to do: the page "When something is wrong".

>>> CODES["wait_timeout"].exit_code
4

``python -m runpod_comfy.error_codes`` writes the table as JSON. A code never changes its meaning and is never used
again; texts may change at any time.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from typing import Final

__all__ = ["CODES", "ErrorCode"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorCode:
    """One code.

    Attributes:
        code: The name that scripts go by.
        exit_code: The command's exit code with it.
        means: What has happened, in a sentence.
        next_step: What to do, in a sentence or two.
        paid: Whether GPU time may have been paid for: ``no``, ``yes`` or ``maybe``.
        error: The class of ``runpod_comfy.errors`` in Python, or None for what only the command reports.
    """

    code: str
    exit_code: int
    means: str
    next_step: str
    paid: str = "no"
    error: str | None = None


_ALL: Final = (
    # -- before anything is sent ---------------------------------------------------------------------------------------
    ErrorCode(
        code="usage",
        exit_code=2,
        means="The command line cannot be meant so: an unknown option, a wrong value, a missing argument.",
        next_step="Read the message, which names the nearest that exists, or run the verb with --help.",
    ),
    ErrorCode(
        code="configuration_error",
        exit_code=2,
        means="A setting is missing or out of range: an endpoint, an address, a profile, a folder.",
        next_step="The message names the argument and the variable. runpod-comfy doctor finds most of them.",
        error="ConfigurationError",
    ),
    ErrorCode(
        code="missing_key",
        exit_code=3,
        means="The target is a RunPod endpoint and there is no usable API key.",
        next_step="Run runpod-comfy init, or export RUNPOD_API_KEY. With --local no key is needed.",
    ),
    ErrorCode(
        code="template_error",
        exit_code=2,
        means="The template cannot be read or rendered: a missing variable, a Jinja error, no JSON afterwards.",
        next_step="Line and snippet are in the message. runpod-comfy template show TEMPLATE lists its variables.",
        error="TemplateError",
    ),
    ErrorCode(
        code="workflow_graph_error",
        exit_code=2,
        means="The workflow is no graph that ComfyUI would take: a broken link, an unknown node or model, no output.",
        next_step="runpod-comfy template validate TEMPLATE names every problem. runpod-comfy describe tells what a "
        "place has installed, --no-check sends it all the same.",
        error="WorkflowGraphError",
    ),
    ErrorCode(
        code="input_error",
        exit_code=2,
        means="An input image or a row of data cannot be read, is damaged or too large.",
        next_step="The message names the file or the line. batch --skip-bad leaves such rows out.",
        error="InputError",
    ),
    ErrorCode(
        code="payload_too_large",
        exit_code=2,
        means="The request is larger than RunPod takes.",
        next_step="Scale the photos down (--input-max-pixels), or let them travel through a bucket.",
        error="PayloadTooLarge",
    ),
    ErrorCode(
        code="file_error",
        exit_code=1,
        means="A file or folder of this machine cannot be read or written; a full disk is the usual reason.",
        next_step="Make room or mend the permissions. What had arrived is kept; runpod-comfy collect fetches the rest.",
        paid="maybe",
    ),
    ErrorCode(
        code="ledger_error",
        exit_code=1,
        means="The file in which jobs are written down cannot be read or written.",
        next_step="Make room, name another file with RUNPOD_COMFY_LEDGER, or do without one (run --no-ledger).",
        error="LedgerError",
    ),
    # -- the way to RunPod or ComfyUI ----------------------------------------------------------------------------------
    ErrorCode(
        code="transport_error",
        exit_code=1,
        means="The server did not answer: no connection, a reset, a time-out.",
        next_step="Check address, network and proxy (runpod-comfy doctor), then try again.",
        error="TransportError",
    ),
    ErrorCode(
        code="api_error",
        exit_code=1,
        means="The server answered with a status that means no.",
        next_step="The message has the status and what the server said.",
        error="ApiError",
    ),
    ErrorCode(
        code="authentication_error",
        exit_code=3,
        means="The API key is not accepted, or not for this endpoint.",
        next_step="Make a key at https://console.runpod.io/user/settings and store it with runpod-comfy init.",
        error="AuthenticationError",
    ),
    ErrorCode(
        code="not_found",
        exit_code=1,
        means="There is no such endpoint, or RunPod no longer knows the job.",
        next_step="Compare the endpoint's id with RunPod's console. A result is kept for 30 minutes.",
        error="NotFound",
    ),
    ErrorCode(
        code="rate_limited",
        exit_code=1,
        means="RunPod refuses requests because there were too many, of all clients of the key together.",
        next_step="Wait a minute; run fewer processes at once, or fewer --jobs.",
        error="RateLimited",
    ),
    ErrorCode(
        code="server_error",
        exit_code=1,
        means="RunPod, or what stands in front of it, failed.",
        next_step="Try again in some minutes; https://uptime.runpod.io shows known outages.",
        error="ServerError",
    ),
    ErrorCode(
        code="submission_uncertain",
        exit_code=1,
        means="The job was sent and the answer was lost: it may or may not run.",
        next_step="Look at the endpoint's requests in RunPod's console before sending it again; --on-uncertain "
        "resubmit takes the risk of paying twice.",
        paid="maybe",
        error="SubmissionUncertain",
    ),
    ErrorCode(
        code="protocol_error",
        exit_code=1,
        means="An answer cannot be read: the endpoint runs another kind of worker, or a broken one.",
        next_step="runpod-comfy describe says what runs there. Deploy this project's worker, or RunPod's "
        "worker-comfyui 2.0 or newer.",
        paid="maybe",
        error="ProtocolError",
    ),
    # -- jobs ----------------------------------------------------------------------------------------------------------
    ErrorCode(
        code="job_error",
        exit_code=1,
        means="The job exists and did not deliver everything.",
        next_step="What arrived is saved. runpod-comfy jobs says how it stands.",
        paid="yes",
        error="JobError",
    ),
    ErrorCode(
        code="job_failed",
        exit_code=1,
        means="The worker or ComfyUI reported an error; node and traceback are in the error's fields.",
        next_step="Out of memory: smaller images or a GPU with more. A missing model or node: runpod-comfy doctor "
        "--template TEMPLATE.",
        paid="yes",
        error="JobFailed",
    ),
    ErrorCode(
        code="job_cancelled",
        exit_code=1,
        means="Somebody cancelled the job.",
        next_step="Run the same command again; batch goes on where it ended.",
        paid="maybe",
        error="JobCancelled",
    ),
    ErrorCode(
        code="job_timed_out",
        exit_code=4,
        means="RunPod ended the job: it ran longer than its execution time-out, or waited longer than its ttl.",
        next_step="Pass a longer --timeout, ask for fewer images a job, or see with runpod-comfy health why no worker "
        "took it.",
        paid="maybe",
        error="JobTimedOut",
    ),
    ErrorCode(
        code="job_expired",
        exit_code=1,
        means="RunPod no longer knows the job: results are kept for 30 minutes, or 60 s after a large request.",
        next_step="What was saved is in the output folder; run the command again for the rest.",
        paid="yes",
        error="JobExpired",
    ),
    ErrorCode(
        code="output_lost",
        exit_code=1,
        means="The job ended and a part of its output never arrived.",
        next_step="What arrived is saved. runpod-comfy collect makes what is missing again, with the same seeds.",
        paid="yes",
        error="OutputLost",
    ),
    ErrorCode(
        code="job_in_use",
        exit_code=1,
        means="Another process reads the job, and there can be only one reader.",
        next_step="Wait for it, or take the job over: runpod-comfy collect JOB --take-over.",
        paid="maybe",
        error="JobInUse",
    ),
    ErrorCode(
        code="wait_timeout",
        exit_code=4,
        means="The time that was given is over; a job that this command had started was cancelled.",
        next_step="Pass a longer --timeout. runpod-comfy health says whether a worker could have taken it.",
        paid="maybe",
        error="WaitTimeout",
    ),
    ErrorCode(
        code="rows_failed",
        exit_code=1,
        means="A dataset has ended and some of its rows failed; the others are there.",
        next_step="The causes are listed at its end. The same command tries the failed rows again.",
        paid="yes",
    ),
    # -- the command itself --------------------------------------------------------------------------------------------
    ErrorCode(
        code="not_ready",
        exit_code=1,
        means="doctor found something that keeps jobs from running.",
        next_step="Each fault has the command that mends it beside it.",
    ),
    ErrorCode(
        code="interrupted",
        exit_code=130,
        means="Ctrl-C, or another signal, ended the command, after it had cancelled the job it had started.",
        next_step="What arrived is saved. batch goes on with the same command.",
        paid="maybe",
    ),
    ErrorCode(
        code="aborted",
        exit_code=1,
        means="A question was answered with no; nothing was begun.",
        next_step="Pass -y to begin without being asked.",
    ),
    ErrorCode(
        code="runpod_comfy_error",
        exit_code=1,
        means="Something else that this package reports.",
        next_step="The message says what to do.",
        error="RunpodComfyError",
    ),
)

CODES: Final = {each.code: each for each in _ALL}
"""The codes by name, in the order of a job's life."""


if __name__ == "__main__":
    sys.stdout.write(json.dumps([asdict(each) for each in _ALL], indent=1) + "\n")
