"""The body of ``/stream``, read as it arrives, so that neither its size nor its loss half-way costs more than it must.

::

    {"status": "IN_PROGRESS", "stream": [{"output": "…"}, {"output": "…"}]}

An answer holds everything that a job has yielded since the last read, which can be a hundred MB; parsing that at once
would take as much again, and stop every thread of the process meanwhile. So a long body is cut after a whole item, and
what is before the cut is parsed by itself. A body that is laid out otherwise than RunPod's is parsed at its end.
"""

from __future__ import annotations

from typing import Any

import orjson

__all__ = ["CUT_BYTES", "StreamBody"]

CUT_BYTES = 2 * 1024 * 1024
"""From this size on a body is parsed in parts."""

# Within a JSON string each quote has a backslash before it, so no output that is a string can hold this.
_BETWEEN_ITEMS = b'},{"output":'


class StreamBody:
    """Takes a body in chunks and gives the outputs in it.

    Attributes:
        state: The job's state that it told, or "" as long as it has told none.
    """

    def __init__(self) -> None:
        self.state = ""
        self._chunks: list[bytes] = []
        self._size_bytes = 0
        self._opened: bytes | None = None  # what makes the rest of the body JSON again, once its head was cut off
        self._cut_at = CUT_BYTES

    def add(self, chunk: bytes) -> None:
        """Take the next bytes."""
        self._chunks.append(chunk)
        self._size_bytes += len(chunk)

    @property
    def is_long(self) -> bool:
        """Whether enough is here to ``cut`` some of it."""
        return self._size_bytes >= self._cut_at

    def cut(self) -> list[Any]:
        """Return the outputs that are whole so far, and forget their bytes; possibly none."""
        rest = b"".join(self._chunks)
        self._chunks = [rest]
        end = rest.rfind(_BETWEEN_ITEMS)
        if end < 0:
            self._cut_at *= 2
            return []
        head = self._opened or b""
        is_bare_list = (head or rest[:1]) == b"["
        try:
            answer = orjson.loads(b"".join((head, memoryview(rest)[: end + 1], b"]" if is_bare_list else b"]}")))
        except orjson.JSONDecodeError:
            # An output that is itself such a list, or another layout.
            self._cut_at *= 2
            return []
        self._chunks = [rest[end + 2 :]]
        self._size_bytes = len(self._chunks[0])
        self._cut_at = CUT_BYTES
        self._opened = b"[" if is_bare_list else b'{"stream":['
        return self._outputs(answer)

    def end(self) -> list[Any]:
        """Return what is left when the body has ended.

        Raises:
            ValueError: It is not JSON, or not an answer to ``/stream``.
        """
        answer = orjson.loads(b"".join((self._opened or b"", *self._chunks)))
        self._chunks.clear()
        return self._outputs(answer)

    def _outputs(self, answer: Any) -> list[Any]:
        # The docs show a bare list; both official SDKs read an object. Either is taken.
        pieces = answer if isinstance(answer, list) else answer.get("stream") if isinstance(answer, dict) else None
        if not isinstance(pieces, list):
            raise ValueError("the answer to /stream has no list of outputs")  # noqa: TRY004 - callers map ValueError
        state = answer.get("status") if isinstance(answer, dict) else None
        if isinstance(state, str):
            self.state = state
        return [piece.get("output") if isinstance(piece, dict) else piece for piece in pieces]
