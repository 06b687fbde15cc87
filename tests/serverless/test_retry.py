import random

import pytest

from runpod_comfy.errors import (
    ApiError,
    AuthenticationError,
    NotFound,
    ProtocolError,
    RateLimited,
    ServerError,
    TransportError,
)
from runpod_comfy.serverless.retry import Backoff, is_transient


@pytest.mark.parametrize(
    "error",
    [TransportError(), RateLimited(), ServerError(status_code=503), ProtocolError(), ApiError(status_code=408)],
    ids=lambda error: type(error).__name__,
)
def test_what_passes_by_itself_is_tried_again(error):
    assert is_transient(error)


@pytest.mark.parametrize(
    "error",
    [AuthenticationError(status_code=401), NotFound(status_code=404), ApiError(status_code=400)],
    ids=lambda error: type(error).__name__,
)
def test_what_stays_wrong_is_not(error):
    assert not is_transient(error)


def test_waits_grow_to_a_ceiling_and_keep_their_jitter():
    backoff = Backoff(first_s=1.0, longest_s=8.0, rng=random.Random(1))
    waits = [backoff.next_s() for _ in range(30)]
    assert all(0.5 <= wait <= 8.0 for wait in waits)
    assert waits[0] <= 1.0
    assert min(waits[4:]) >= 4.0
    assert len(set(waits)) == 30


def test_what_the_server_asked_for_is_the_least():
    assert Backoff(first_s=0.1).next_s(at_least_s=20) == 20


def test_success_starts_afresh():
    backoff = Backoff(first_s=1.0)
    for _ in range(5):
        backoff.next_s()
    backoff.reset()
    assert backoff.next_s() <= 1.0
