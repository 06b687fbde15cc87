"""Every error this package raises, in one tree.

::

    RunpodComfyError
    ├── ConfigurationError (ValueError)   no key, no endpoint, an argument out of range: before any request
    ├── TemplateError                     missing variables, bad Jinja, bad JSON after rendering
    ├── WorkflowGraphError                not an API-format graph: UI export, broken link, no output node
    ├── InputError                        an input image that cannot be read or sent
    │   └── PayloadTooLarge               the request is over RunPod's limit
    ├── TransportError                    no answer from the server
    ├── ApiError                          an answer that says no
    │   ├── AuthenticationError           401, 403
    │   ├── NotFound                      404
    │   ├── RateLimited                   429
    │   └── ServerError                   5xx
    ├── SubmissionUncertain               POST /run was sent and never answered
    ├── ProtocolError                     an answer we cannot read
    ├── LedgerError                       the ledger's file cannot be read or written
    └── JobError                          the job exists and did not deliver everything
        ├── JobFailed                     the worker or ComfyUI reported an error
        ├── JobCancelled                  somebody cancelled it
        ├── JobTimedOut                   RunPod ended it (executionTimeout or ttl)
        ├── JobExpired                    RunPod no longer knows it
        ├── OutputLost                    it ended, and a part of its output never arrived
        ├── JobInUse                      another process reads it, and there must be one reader
        └── WaitTimeout (TimeoutError)    we stopped waiting; see its ``job_id``

Handlers choose by class and by the ids an error carries, never by its text. Nothing in this module imports
anything else of the package.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runpod_comfy.results import WorkflowResult

__all__ = [
    "ApiError",
    "AuthenticationError",
    "ConfigurationError",
    "InputError",
    "JobCancelled",
    "JobError",
    "JobExpired",
    "JobFailed",
    "JobInUse",
    "JobTimedOut",
    "LedgerError",
    "NotFound",
    "OutputLost",
    "PayloadTooLarge",
    "ProtocolError",
    "RateLimited",
    "RunpodComfyError",
    "ServerError",
    "SubmissionUncertain",
    "TemplateError",
    "TransportError",
    "WaitTimeout",
    "WorkflowGraphError",
]


class RunpodComfyError(Exception):
    """Anything that this package reports; its text says what to do next.

    Attributes:
        job_id: RunPod's id of the job concerned, or None.
        endpoint_id: The endpoint concerned, or None.
    """

    def __init__(self, message: str = "", *, job_id: str | None = None, endpoint_id: str | None = None) -> None:
        super().__init__(message)
        self.job_id = job_id
        self.endpoint_id = endpoint_id

    @property
    def code(self) -> str:
        """A name for scripts, such as ``job_failed``; it stays the same when texts change (see ``error_codes``)."""
        # A subclass that is not of this tree goes by the class that users know.
        public = next(each for each in type(self).__mro__ if each.__module__ == __name__)
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", public.__name__).lower()


class ConfigurationError(RunpodComfyError, ValueError):
    """A setting is missing or out of range; nothing was sent. The text names the argument and the variable."""


class TemplateError(RunpodComfyError):
    """The workflow template cannot be read or rendered; nothing was sent.

    Attributes:
        template: The template's file name, or ``<string>``.
        line: The line at fault, counted from 1 (of the template, or of the rendered text for bad JSON), or None.
        column: The column at fault, counted from 1, or None.
        missing: The names of variables that were needed and not given.
    """

    def __init__(
        self,
        message: str = "",
        *,
        template: str | None = None,
        line: int | None = None,
        column: int | None = None,
        missing: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.template = template
        self.line = line
        self.column = column
        self.missing = missing


class WorkflowGraphError(RunpodComfyError):
    """The workflow is no graph that ComfyUI's API accepts; nothing was sent.

    Attributes:
        node_id: The node at fault, or None.
    """

    def __init__(self, message: str = "", *, node_id: str | None = None) -> None:
        super().__init__(message)
        self.node_id = node_id


class InputError(RunpodComfyError):
    """An input image cannot be read, is damaged or too large; nothing was sent. The text names the image."""


class PayloadTooLarge(InputError):
    """The request is larger than RunPod accepts; nothing was sent. The text lists sizes and remedies.

    Attributes:
        size_bytes: The size of the request body.
        limit_bytes: The size that RunPod accepts.
    """

    def __init__(self, message: str = "", *, size_bytes: int = 0, limit_bytes: int = 0) -> None:
        super().__init__(message)
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes


class TransportError(RunpodComfyError):
    """The server did not answer (no connection, reset, time-out). Check the network and the address; try again."""


class ApiError(RunpodComfyError):
    """The server answered with a status that means no.

    Attributes:
        status_code: The HTTP status.
        body: The first part of the answer's body as text, for people; its shape is not documented by RunPod.
    """

    def __init__(
        self,
        message: str = "",
        *,
        status_code: int = 0,
        body: str = "",
        job_id: str | None = None,
        endpoint_id: str | None = None,
    ) -> None:
        super().__init__(message, job_id=job_id, endpoint_id=endpoint_id)
        self.status_code = status_code
        self.body = body


class AuthenticationError(ApiError):
    """401 or 403: the key is missing, wrong, or not allowed to use this endpoint. Check the key."""


class NotFound(ApiError):
    """404: no such endpoint, or a job that RunPod does not know (any more)."""


class RateLimited(ApiError):
    """429: too many requests.

    Attributes:
        retry_after_s: What the server asked for, in seconds, or None.
    """

    retry_after_s: float | None = None


class ServerError(ApiError):
    """5xx: RunPod, or what stands in front of it, failed. Trying again later may help."""


class SubmissionUncertain(RunpodComfyError):
    """``POST /run`` was sent and never answered: the job may or may not run, and may be paid for.

    It is not repeated, because that could pay for the work twice. Look at the endpoint's requests in RunPod's
    console before submitting again.

    Attributes:
        submission_id: The id that travelled in the job's input.
    """

    def __init__(self, message: str = "", *, submission_id: str | None = None, endpoint_id: str | None = None) -> None:
        super().__init__(message, endpoint_id=endpoint_id)
        self.submission_id = submission_id


class ProtocolError(RunpodComfyError):
    """An answer that cannot be read: the endpoint runs another kind of worker, or a broken one."""


class LedgerError(RunpodComfyError):
    """The ledger's file cannot be read or written: a full disk, a read-only folder. The text names the file."""


class JobError(RunpodComfyError):
    """The job exists and did not deliver everything; ``partial`` holds what did arrive.

    Attributes:
        partial: The outputs that arrived before the failure (possibly empty), or None where none were expected.
    """

    def __init__(
        self,
        message: str = "",
        *,
        job_id: str | None = None,
        endpoint_id: str | None = None,
        partial: WorkflowResult | None = None,
    ) -> None:
        super().__init__(message, job_id=job_id, endpoint_id=endpoint_id)
        self.partial = partial


class JobFailed(JobError):
    """The worker or ComfyUI reported an error; its own words are in the text.

    Attributes:
        node_id: The ComfyUI node at fault, or None.
        node_type: That node's class, or None.
        traceback: The remote traceback as text, or None.
    """

    def __init__(
        self,
        message: str = "",
        *,
        node_id: str | None = None,
        node_type: str | None = None,
        traceback: str | None = None,
        job_id: str | None = None,
        endpoint_id: str | None = None,
        partial: WorkflowResult | None = None,
    ) -> None:
        super().__init__(message, job_id=job_id, endpoint_id=endpoint_id, partial=partial)
        self.node_id = node_id
        self.node_type = node_type
        self.traceback = traceback


class JobCancelled(JobError):
    """The job was cancelled, here or by somebody else."""


class JobTimedOut(JobError):
    """RunPod ended the job: it ran longer than ``policy.executionTimeout`` or waited longer than ``policy.ttl``."""


class JobExpired(JobError):
    """RunPod no longer knows the job: its result was kept for 30 minutes (60 seconds after ``/runsync``)."""


class OutputLost(JobError):
    """The job ended and a part of its output never arrived; ``partial`` holds the rest.

    Attributes:
        missing_batches: The batches that are not whole, counted from 0; empty where that is not known.
    """

    missing_batches: tuple[int, ...] = ()


class JobInUse(JobError):
    """Another process reads the job; a second reader of its stream would take pieces away. Wait, or take it over."""


class WaitTimeout(JobError, TimeoutError):
    """The time given by the caller is over. The job id, where there is one, is in ``job_id``."""
