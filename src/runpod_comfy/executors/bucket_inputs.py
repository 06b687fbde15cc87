"""Input images that no request body has room for: put into a bucket, and named in the request by a presigned URL.

The bucket is the one that ``BUCKET_ENDPOINT_URL`` and its like name on the client's machine; the worker fetches from it
and needs no key. An image is known by its content and put there once.
"""

from __future__ import annotations

import functools
import hashlib
import time
from typing import TYPE_CHECKING, Any

from runpod_comfy.bucket import URL_LIFETIME_S, Bucket, BucketSettings, object_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runpod_comfy.media.inputs import InputImage
    from runpod_comfy.submission import Submission

__all__ = ["with_images_in_bucket"]

_URL_USED_S = URL_LIFETIME_S / 2  # a job may wait for days before its worker fetches
_MAX_REMEMBERED = 10_000


def with_images_in_bucket(
    job_input: Mapping[str, Any], submission: Submission, environ: Mapping[str, str] | None = None
) -> dict[str, Any] | None:
    """Return a native job's input with URLs in place of its images' bytes, or None where no bucket is set. Blocks.

    Raises:
        ConfigurationError: The bucket's variables are incomplete.
        TransportError: The bucket did not take an image.
    """
    settings = BucketSettings.from_env(environ)
    if settings is None or not submission.images:
        return None
    shelf = _shelf(settings)
    images = [
        {"name": image.name, "url": shelf.url_of(image), "subfolder": image.subfolder} for image in submission.images
    ]
    return {**job_input, "images": images}


class _InputShelf:
    """A bucket, and the URLs of what was put there lately."""

    def __init__(self, settings: BucketSettings) -> None:
        self._bucket = Bucket(settings)
        self._urls: dict[str, tuple[str, float]] = {}

    def url_of(self, image: InputImage) -> str:
        content = hashlib.sha256(image.data).hexdigest()
        url, put_at_s = self._urls.get(content, ("", 0.0))
        if not url or time.time() - put_at_s > _URL_USED_S:
            key = object_key("runpod-comfy-inputs", f"{content}.{image.name.rpartition('.')[2]}")
            url = self._bucket.put(key, image.data, media_type=image.media_type)
            if len(self._urls) >= _MAX_REMEMBERED:
                self._urls.pop(next(iter(self._urls)))
            self._urls[content] = (url, time.time())
        return url


@functools.lru_cache(maxsize=4)
def _shelf(settings: BucketSettings) -> _InputShelf:
    return _InputShelf(settings)
