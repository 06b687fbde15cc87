"""What GPU time costs, in the same words everywhere: always "at least", with its parts, and a price with its date.

RunPod bills a worker from its start to its full stop (docs, ``serverless/pricing``): start, execution and idle time.
A client sees the execution of its own jobs alone, so execution times price is a lower bound. No price is in this
package: one comes from an argument, the user's profile, or RunPod's catalogue.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["GpuTime", "Price", "cost_text", "usd"]

_HOUR_S = 3600.0
_SMALL_USD, _TINY_USD = 0.1, 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a worker costs.

    Attributes:
        per_hour_usd: US dollars an hour.
        source: Where that is from, in words.
        as_of: The day on which it was so, as ``YYYY-MM-DD``; None where nobody said.
    """

    per_hour_usd: float
    source: str
    as_of: str | None = None

    def __str__(self) -> str:
        return f"price {usd(self.per_hour_usd)}/h {self.source}, {self.as_of or 'undated'}"

    def of(self, seconds: float) -> float:
        """Return what so many seconds cost, in US dollars."""
        return seconds / _HOUR_S * self.per_hour_usd


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuTime:
    """What some jobs used.

    Attributes:
        execution_s: Their execution together: what RunPod bills at least.
        waited_s: How long they waited, each counted by itself; workers' starts are within it.
        idle_s: How long a worker stays up after its last job (the endpoint's idle timeout), or None.
        images: How many images they made.
    """

    execution_s: float = 0.0
    waited_s: float | None = None
    idle_s: float | None = None
    images: int = 0

    def parts(self, price: Price | None) -> str:
        """Name the parts of the bill: what is known of each."""

        def amount(seconds: float) -> str:
            return f"{seconds:,.0f} s" if price is None else usd(price.of(seconds))

        start = "start unknown" if self.waited_s is None else f"start ≤ {amount(self.waited_s)}"
        idle = "idle unknown" if self.idle_s is None else f"idle ≤ {amount(self.idle_s)} a worker"
        return f"execution {amount(self.execution_s)} + {start} + {idle}"


def cost_text(used: GpuTime, price: Price | None) -> str:
    """Say what some jobs cost.

    >>> price = Price(per_hour_usd=1.1, source="from --price", as_of="2026-11-24")
    >>> cost_text(GpuTime(execution_s=3600, images=400), price)
    'at least $1.10 (execution $1.10 + start unknown + idle unknown) · $0.0028 an image · price $1.10/h from --price, \
2026-11-24'
    >>> cost_text(GpuTime(execution_s=90), None)
    'at least 90 s of GPU time (execution 90 s + start unknown + idle unknown)'
    """
    if price is None:
        return f"at least {used.execution_s:,.0f} s of GPU time ({used.parts(None)})"
    total = price.of(used.execution_s)
    each = f" · {usd(total / used.images)} an image" if used.images else ""
    return f"at least {usd(total)} ({used.parts(price)}){each} · {price}"


def usd(amount: float) -> str:
    """Write an amount: cents, and more places where that would be nothing.

    >>> usd(12.5), usd(0.0031), usd(0.000012), usd(0)
    ('$12.50', '$0.0031', '$0.000012', '$0.00')
    """
    places = 2 if not 0 < amount < _SMALL_USD else 4 if amount >= _TINY_USD else 6
    return f"${amount:,.{places}f}"
