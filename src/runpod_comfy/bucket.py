"""An S3-compatible bucket: what is too large for a job's answer goes there, and a presigned URL comes back.

boto3 is blocking and takes 0.3 s to load: it is imported when the first bucket is opened, and calls belong in a thread.
"""

from __future__ import annotations

import io
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, urlsplit

from runpod_comfy.errors import ConfigurationError, TransportError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mypy_boto3_s3 import S3Client

__all__ = ["URL_LIFETIME_S", "Bucket", "BucketSettings", "object_key"]

URL_LIFETIME_S = 7 * 24 * 3600
"""How long a presigned URL works: the longest that signature version 4 allows."""

_MULTIPART_FROM_BYTES = 64 * 1024 * 1024
_CONNECT_S, _READ_S = 15, 120
_MAX_SEGMENT_BYTES = 200

_ENVIRONMENT = {
    "endpoint_url": "BUCKET_ENDPOINT_URL",
    "access_key_id": "BUCKET_ACCESS_KEY_ID",
    "secret_access_key": "BUCKET_SECRET_ACCESS_KEY",
}
# RunPod passes a request's top-level `s3Config` on to the worker as it is (docs: send-requests, S3-compatible storage).
_S3_CONFIG = {"endpoint_url": "endpointUrl", "access_key_id": "accessId", "secret_access_key": "accessSecret"}

_BUCKET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_AWS_HOST = re.compile(r"(?:(?P<bucket>.+)\.)?s3(?:[.-](?P<region>[a-z]{2}(?:-[a-z]+)+-\d))?\.amazonaws\.com")
_SPACES_HOST = re.compile(r"(?:(?P<bucket>.+)\.)?(?P<region>[a-z]{3}\d)\.digitaloceanspaces\.com")


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketSettings:
    """Where a bucket is and what opens it.

    Attributes:
        endpoint_url: The storage's address, without the bucket: ``https://s3.eu-central-1.amazonaws.com``.
        name: The bucket.
        region: The region that requests are signed for.
        access_key_id: The key's id; kept out of ``repr``.
        secret_access_key: The key; kept out of ``repr``.
        prefix: What each object's key begins with, without slashes around it.
    """

    endpoint_url: str
    name: str
    region: str = "us-east-1"
    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    prefix: str = ""

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self | None:
        """Read ``BUCKET_ENDPOINT_URL``, ``BUCKET_ACCESS_KEY_ID``, ``BUCKET_SECRET_ACCESS_KEY``; None where none is set.

        ``BUCKET_NAME``, ``BUCKET_REGION`` and ``BUCKET_PREFIX`` say what the address does not.

        Raises:
            ConfigurationError: A part of it is missing or cannot be right.
        """
        env = os.environ if environ is None else environ
        given = {part: env.get(variable, "").strip() for part, variable in _ENVIRONMENT.items()}
        if not any(given.values()):
            return None
        _check_complete(given, _ENVIRONMENT, "The bucket in the worker's environment")
        return cls._of(
            given, name=env.get("BUCKET_NAME"), region=env.get("BUCKET_REGION"), prefix=env.get("BUCKET_PREFIX") or ""
        )

    @classmethod
    def from_s3_config(cls, s3_config: object) -> Self | None:
        """Read a request's ``s3Config``: ``accessId``, ``accessSecret``, ``bucketName``, ``endpointUrl``; or none.

        Raises:
            ConfigurationError: A part of it is missing or cannot be right.
        """
        if s3_config is None or s3_config == {}:
            return None
        if not isinstance(s3_config, dict):
            raise ConfigurationError("The request's s3Config is no object with accessId, accessSecret, endpointUrl.")
        given = {part: str(s3_config.get(key) or "").strip() for part, key in _S3_CONFIG.items()}
        _check_complete(given, _S3_CONFIG, "The request's s3Config")
        return cls._of(given, name=str(s3_config.get("bucketName") or ""), region=None, prefix="")

    @classmethod
    def _of(cls, given: Mapping[str, str], *, name: str | None, region: str | None, prefix: str) -> Self:
        endpoint_url, named, in_region = _split_address(given["endpoint_url"], (name or "").strip())
        return cls(
            endpoint_url=endpoint_url,
            name=named,
            region=(region or "").strip() or in_region,
            access_key_id=given["access_key_id"],
            secret_access_key=given["secret_access_key"],
            prefix=prefix.strip("/ "),
        )


class Bucket:
    """One bucket. Its methods block; they may be called from several threads at once.

    >>> bucket = Bucket(BucketSettings.from_env())  # doctest: +SKIP
    >>> url = bucket.put("job-1/portrait_00001_.png", data, media_type="image/png")  # doctest: +SKIP
    """

    def __init__(self, settings: BucketSettings) -> None:
        self._settings = settings
        self._client = _connect(settings)

    def __repr__(self) -> str:
        return f"Bucket({self._settings.name!r}, endpoint_url={self._settings.endpoint_url!r})"

    def put(self, key: str, data: bytes, *, media_type: str) -> str:
        """Store bytes under a key and return a presigned URL, which works for ``URL_LIFETIME_S``.

        Raises:
            TransportError: The storage does not answer, or refuses.
        """
        from boto3.exceptions import Boto3Error  # noqa: PLC0415 - see the module's docstring
        from boto3.s3.transfer import TransferConfig  # noqa: PLC0415 - likewise
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - likewise

        key = f"{self._settings.prefix}/{key}" if self._settings.prefix else key
        place = {"Bucket": self._settings.name, "Key": key}
        try:
            self._client.upload_fileobj(
                io.BytesIO(data),
                Bucket=self._settings.name,
                Key=key,
                ExtraArgs={"ContentType": media_type},
                Config=TransferConfig(multipart_threshold=_MULTIPART_FROM_BYTES, max_concurrency=4),
            )
            return self._client.generate_presigned_url("get_object", Params=place, ExpiresIn=URL_LIFETIME_S)
        except (Boto3Error, BotoCoreError, ClientError) as exc:
            raise TransportError(
                f"The bucket {self._settings.name!r} at {self._settings.endpoint_url} did not take {key!r}: "
                f"{_reason(exc)}. Check its name, its address and the rights of the key."
            ) from exc


def object_key(*parts: str) -> str:
    """Return a key made of a job's id, a subfolder and a name, each of which may come from outside.

    >>> object_key("job-1", "../x/./y", "a_00001_.png")
    'job-1/x/y/a_00001_.png'
    """
    segments = (segment for part in parts for segment in part.replace("\\", "/").split("/"))
    clean = (_clean(segment) for segment in segments if segment not in {"", ".", ".."})
    return "/".join(segment for segment in clean if segment)


def _clean(segment: str) -> str:
    printable = "".join(char for char in segment if char.isprintable()).strip()
    return printable.encode("utf-8", "replace")[:_MAX_SEGMENT_BYTES].decode("utf-8", "ignore")


def _check_complete(given: Mapping[str, str], names: Mapping[str, str], what: str) -> None:
    missing = [names[part] for part, value in given.items() if not value]
    if missing:
        raise ConfigurationError(f"{what} is incomplete: {' and '.join(missing)} is missing. Give all three, or none.")


def _split_address(url: str, name: str) -> tuple[str, str, str]:
    """Return the storage's address, the bucket and the region; RunPod's own examples put the bucket into the host."""
    parts = urlsplit(url)
    try:
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        port = None
    if parts.scheme not in {"http", "https"} or not parts.hostname or port is None or parts.username:
        raise ConfigurationError("The bucket's endpoint URL is no https://… address without user and password.")
    host, region = parts.hostname, ""
    in_path = parts.path.strip("/").partition("/")[0]
    if known := _AWS_HOST.fullmatch(host) or _SPACES_HOST.fullmatch(host):
        region = known["region"] or ""
        if known["bucket"]:
            name = name or known["bucket"]
            host = host.removeprefix(f"{known['bucket']}.") if name == known["bucket"] else host
    elif name and host.startswith(f"{name}."):
        host = host.removeprefix(f"{name}.")
    name = name or in_path
    if not _BUCKET_NAME.fullmatch(name):
        raise ConfigurationError(
            f"The bucket at {host} has no name that can be read: set BUCKET_NAME (in s3Config: bucketName), "
            "or put it behind the address: https://host/bucket."
        )
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}{port}", name, region or "us-east-1"


def _connect(settings: BucketSettings) -> S3Client:
    import boto3  # noqa: PLC0415 - see the module's docstring
    from botocore.config import Config  # noqa: PLC0415 - likewise

    config: Any = Config(
        signature_version="s3v4",
        # Works with every storage; a bucket in the host's name needs DNS that a MinIO or RunPod's volumes do not have.
        s3={"addressing_style": "path"},
        # Since 1.36 boto3 adds checksums that R2 and Google answer with SignatureDoesNotMatch.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        retries={"max_attempts": 4, "mode": "standard"},
        connect_timeout=_CONNECT_S,
        read_timeout=_READ_S,
    )
    return boto3.client(
        "s3",
        endpoint_url=settings.endpoint_url,
        region_name=settings.region,
        aws_access_key_id=settings.access_key_id,
        aws_secret_access_key=settings.secret_access_key,
        config=config,
    )


def _reason(exc: Exception) -> str:
    """Say what went wrong without URLs and headers, which hold the signature."""
    cause = exc.__cause__ or exc.__context__ or exc
    for each in (exc, cause):
        error = getattr(each, "response", {}).get("Error", {})
        if error.get("Code"):
            return f"{error['Code']} ({quote(str(error.get('Message') or ''), safe=' .,:()')[:200]})"
    return type(cause).__name__
