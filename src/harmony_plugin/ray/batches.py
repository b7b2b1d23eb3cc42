"""A batch of rows as an Arrow table, split: ids go from Arrow's memory to the core a reply at a time.

Knows Arrow and `rows`. Knows neither Ray nor files.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from ..core import Options
from .rows import FIELDS, Columns, fields, options_from_environment, reply_of

__all__ = ["SCHEMA", "split_batch"]

_CALL = pa.struct(
    [
        ("id", pa.string()),
        ("type", pa.string()),
        ("function", pa.struct([("name", pa.string()), ("arguments", pa.string())])),
    ]
)
#: The columns that splitting adds. Said, not inferred: a batch without calls must fit one with.
SCHEMA = pa.schema(
    [
        ("reasoning_content", pa.string()),
        ("content", pa.string()),
        ("tool_calls", pa.list_(_CALL)),
        ("reasoning_tokens", pa.int32()),
        ("issues", pa.list_(pa.string())),
    ]
)


def split_batch(batch: pa.Table, columns: Columns | None = None, options: Options | None = None) -> pa.Table:
    """The table with its replies' fields added, for ``Dataset.map_batches(split_batch, batch_format="pyarrow")``.

    Args:
        batch: a table with the columns that ``columns`` names.
        columns, options: as of `split`.

    Raises:
        KeyError: the table has no such output.
        HarmonyParseError: strict mode met an issue.
    """
    columns = columns or Columns()
    options = options or options_from_environment()
    added: dict[str, list[Any]] = {name: [] for name in FIELDS}
    for row in _rows(batch, columns):
        for name, value in fields(reply_of(row, columns, options)).items():
            added[name].append(value)
    table = batch.drop_columns([name for name in FIELDS if name in batch.column_names])
    for field in SCHEMA:
        table = table.append_column(field, pa.array(added[field.name], field.type))
    return table


def _rows(batch: pa.Table, columns: Columns) -> Iterator[dict[str, Any]]:
    """The columns that splitting reads, a row at a time: as Python's, ids take ten times their place in Arrow."""
    names = [columns.output, *(name for name in (columns.prompt, columns.tools) if name in batch.column_names)]
    for scalars in zip(*(batch.column(name) for name in names), strict=True):
        yield dict(zip(names, map(_value, scalars), strict=True))


def _value(scalar: pa.Scalar) -> Any:
    if (
        isinstance(scalar, (pa.ListScalar, pa.LargeListScalar))
        and scalar.is_valid
        and pa.types.is_integer(scalar.type.value_type)
    ):
        return scalar.values.to_numpy(zero_copy_only=False)  # many times faster than as_py()
    return scalar.as_py()
