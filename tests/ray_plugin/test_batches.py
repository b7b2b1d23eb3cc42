"""Batches as Arrow tables: the same as row by row."""

from __future__ import annotations

import json
from typing import Any

import pytest
from vllm_rig import cases

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed: make ray")

from harmony_plugin.ray import Columns, split  # noqa: E402
from harmony_plugin.ray.batches import SCHEMA, split_batch  # noqa: E402

from .test_rows import TEXT, without_ids  # noqa: E402


@pytest.mark.parametrize("kind", [pa.list_(pa.int32()), pa.list_(pa.int64()), pa.large_list(pa.uint32())], ids=str)
def test_every_case_comes_out_as_from_rows(kind: Any) -> None:
    rows = [{"generated_tokens": list(case.ids), "tools": json.dumps(case.tools)} for case in cases.load()]
    table = pa.table(
        {
            "generated_tokens": pa.array([row["generated_tokens"] for row in rows], kind),
            "tools": pa.array([row["tools"] for row in rows]),
        }
    )
    for got, row in zip(split_batch(table).to_pylist(), rows, strict=True):
        right = split(row)
        calls = without_ids(got.pop("tool_calls")), without_ids(right.pop("tool_calls"))
        assert calls[0] == calls[1]
        assert got == right


def test_all_batches_have_one_schema() -> None:
    empty = pa.table({"id": pa.array([], pa.int64()), "text": pa.array([], pa.string())})
    plain = pa.table({"id": [1], "text": [TEXT]})
    for table in (empty, plain):
        got = split_batch(table, Columns(output="text"))
        assert got.schema == pa.schema([("id", pa.int64()), ("text", pa.string()), *SCHEMA])


def test_null_is_an_empty_reply_and_old_fields_are_replaced() -> None:
    table = pa.table({"content": ["old", "old"], "generated_tokens": pa.array([None, []], pa.list_(pa.int32()))})
    got = split_batch(table)
    assert got.column("content").to_pylist() == [None, None]
    assert got.column_names == ["generated_tokens", *SCHEMA.names]


def test_a_slice_is_read_where_it_begins() -> None:
    whole = cases.load()[:9]
    table = pa.table({"generated_tokens": pa.array([case.ids for case in whole], pa.list_(pa.int32()))})
    got = split_batch(table.slice(4, 3)).column("content").to_pylist()
    assert got == split_batch(table).column("content").to_pylist()[4:7]
