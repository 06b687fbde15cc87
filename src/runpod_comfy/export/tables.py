"""Flat rows as Arrow tables, for the formats that hold Parquet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runpod_comfy.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["load_pyarrow", "schema_of"]


def load_pyarrow() -> Any:
    """Return the module ``pyarrow``, with its Parquet.

    Raises:
        ConfigurationError: It is not installed.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415 - optional, and large
        import pyarrow.parquet  # noqa: PLC0415 - likewise
    except ImportError as exc:
        raise ConfigurationError("This format needs pyarrow: pip install 'runpod-comfy-client[datasets]'.") from exc
    return pa


def schema_of(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Return the Arrow schema of rows whose columns have one type each."""
    pa = load_pyarrow()
    names = list(rows[0])
    return pa.schema([(name, pa.array([row.get(name) for row in rows]).type) for name in names])
