"""Which failures pass by themselves, and how long to wait for that."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runpod_comfy.errors import ApiError, ProtocolError, RateLimited, ServerError, TransportError

if TYPE_CHECKING:
    from runpod_comfy.errors import RunpodComfyError

__all__ = ["Backoff", "is_transient"]

_REQUEST_TIMEOUT = 408


def is_transient(error: RunpodComfyError) -> bool:
    """Whether repeating a read may help: no answer, 408, 429, 5xx, or an answer that was cut or is a proxy's page."""
    match error:
        case TransportError() | RateLimited() | ServerError() | ProtocolError():
            return True
        case ApiError(status_code=status):
            return status == _REQUEST_TIMEOUT
        case _:
            return False


@dataclass(slots=True)
class Backoff:
    """Growing waits with jitter, so that many clients that failed together do not return together.

    Attributes:
        first_s: The first wait.
        longest_s: No wait is longer.
        rng: Where the jitter comes from.
    """

    first_s: float = 0.25
    longest_s: float = 15.0
    rng: random.Random = field(default_factory=random.SystemRandom)
    failures: int = 0

    def next_s(self, *, at_least_s: float | None = None) -> float:
        """Return the next wait in seconds; a server's ``Retry-After`` goes in as ``at_least_s``."""
        ceiling = min(self.longest_s, self.first_s * 2.0 ** min(self.failures, 16))
        self.failures += 1
        return max(at_least_s or 0.0, ceiling * (0.5 + 0.5 * self.rng.random()))

    def reset(self) -> None:
        """Forget earlier failures, after a success."""
        self.failures = 0
