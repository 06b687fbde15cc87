"""The bucket that a job's outputs go to: the request's own, or the worker's."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from runpod_comfy.bucket import Bucket, BucketSettings, object_key
from runpod_comfy.errors import ConfigurationError, InputError
from runpod_comfy.worker.addresses import check_public_host

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["JobBucket", "store_opener"]


class JobBucket:
    """One job's part of a bucket: everything lies below the job's id, under its own name."""

    def __init__(self, bucket: Bucket, job_id: str) -> None:
        self._bucket = bucket
        self._job_id = job_id

    def put(self, name: str, data: bytes, *, media_type: str) -> str:
        """Store an output and return its presigned URL; blocks.

        Raises:
            TransportError: The storage does not answer, or refuses.
        """
        return self._bucket.put(object_key(self._job_id, name), data, media_type=media_type)


def store_opener(
    settings: BucketSettings | None, *, public_only: bool = True
) -> Callable[[dict[str, Any]], JobBucket | None]:
    """Return what opens the bucket for a job's outputs; None where neither the request nor the worker has one.

    RunPod passes a request's ``s3Config`` to the worker beside ``input``. It wins over the worker's own bucket.

    Args:
        settings: The worker's own bucket.
        public_only: Whether a request may only name storage at a public https address.
    """
    own = Bucket(settings) if settings is not None else None

    def open_store(job: dict[str, Any]) -> JobBucket | None:
        """Open the bucket; blocks.

        Raises:
            ConfigurationError: ``s3Config`` is incomplete, or names an address that the worker does not open.
        """
        asked = BucketSettings.from_s3_config(job.get("s3Config"))
        if asked is not None and public_only:
            _check_address(asked.endpoint_url)
        bucket = Bucket(asked) if asked is not None else own
        return JobBucket(bucket, str(job.get("id") or "job")) if bucket is not None else None

    return open_store


def _check_address(url: str) -> None:
    # The name is looked up once more by boto3, whose sockets are not ours; what it reads back is never shown.
    parts = urlsplit(url)
    if parts.scheme != "https":
        raise ConfigurationError("The request's s3Config: endpointUrl is no https address.")
    try:
        asyncio.run(check_public_host(parts.hostname or ""))
    except InputError as exc:
        raise ConfigurationError(f"The request's s3Config: endpointUrl: {exc}") from exc
