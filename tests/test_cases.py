"""Every line of cases/split.jsonl: whole, token by token, cut at places and pairs of places, without its last marker.

The file is a copy of real or quoted model output with what a sensible server returns (its sources are in each line).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from feeding import check_chunks, cut, encode, encode_plain, feed, fields, pairs, signs
from harmony_plugin import Reply, parse

LINES = [
    json.loads(line)
    for line in (Path(__file__).parent / "cases" / "split.jsonl").read_text(encoding="utf-8").splitlines()
]
#: Pairs of places to cut at, per case and way of input. ALL_CUTS=1 in the environment: every pair (minutes).
PAIRS = 10**9 if os.environ.get("ALL_CUTS") else 400
END_MARKERS = ("<|end|>", "<|call|>", "<|return|>")


def each(lines: list[dict[str, Any]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", lines, ids=[line["id"] for line in lines])


cases = each(LINES)


def ids_of(case: dict[str, Any]) -> list[int]:
    if "token_ids" in case:
        return list(case["token_ids"])
    if "segments" in case:
        parts = ((encode if kind == "special" else encode_plain)(text) for kind, text in case["segments"])
        return [token for part in parts for token in part]
    return encode(case["raw"])


def by_text(case: dict[str, Any]) -> bool:
    """Whether the text alone tells what is a marker."""
    return "segments" not in case


def how(case: dict[str, Any]) -> dict[str, Any]:
    # An empty prefix means that the output itself begins with <|start|>.
    return {"prompt": case["prompt_prefix"] or None, "tools": case.get("tools")}


def expected(case: dict[str, Any]) -> tuple[str | None, str | None, list[tuple[str, str]]]:
    want = case["expected"]
    calls = [(call["name"], call["arguments"]) for call in want["tool_calls"]]
    return want["reasoning"], want["content"], calls


def inputs(case: dict[str, Any]) -> list[Any]:
    return [ids_of(case), case["raw"]] if by_text(case) else [ids_of(case)]


def test_the_file_is_whole() -> None:
    assert len(LINES) == 120
    assert len({line["id"] for line in LINES}) == 120


@cases
def test_whole(case: dict[str, Any]) -> None:
    for output in inputs(case):
        reply = parse(output, **how(case))
        assert fields(reply) == expected(case)
        if "finish_reason" in case:
            assert reply.finish_reason(cut=True) == case["finish_reason"]


@each([line for line in LINES if by_text(line)])
def test_text_and_ids_agree(case: dict[str, Any]) -> None:
    text, ids = parse(case["raw"], **how(case)), parse(ids_of(case), **how(case))
    assert (fields(text), text.messages, signs(text.issues)) == (fields(ids), ids.messages, signs(ids.issues))


@cases
def test_token_by_token(case: dict[str, Any]) -> None:
    for output in inputs(case):
        check_chunks([output[n : n + 1] for n in range(len(output))], parse(output, **how(case)), **how(case))


@cases
def test_cut_at_every_place(case: dict[str, Any]) -> None:
    for output in inputs(case):
        whole = parse(output, **how(case))
        for place in range(1, len(output)):
            check_chunks(cut(output, [place]), whole, **how(case))


@cases
def test_cut_at_pairs_of_places(case: dict[str, Any]) -> None:
    for output in inputs(case):
        whole = parse(output, **how(case))
        for pair in pairs(len(output), PAIRS, seed=len(output)):
            check_chunks(cut(output, pair), whole, **how(case))


def shape(reply: Reply) -> list[Any]:
    """The messages, whether or not the last one was closed."""
    return [message._replace(complete=True) for message in reply.messages]


@each([line for line in LINES if line["raw"].endswith(END_MARKERS)])
def test_without_the_last_marker(case: dict[str, Any]) -> None:
    marker = next(marker for marker in END_MARKERS if case["raw"].endswith(marker))
    for output in inputs(case):
        whole = parse(output, **how(case))
        short = output[:-1] if isinstance(output, list) else output.removesuffix(marker)
        reply = parse(short, **how(case))
        assert fields(reply) == expected(case)
        assert shape(reply) == shape(whole)
        assert not reply.messages[-1].complete
        for place in range(1, len(short)):
            check_chunks(cut(short, [place]), reply, **how(case))


@each([line for line in LINES if "chunks" in line])
def test_fed_as_the_source_fed_it(case: dict[str, Any]) -> None:
    assert "".join(case["chunks"]) == case["raw"]
    total, _ = feed(case["chunks"], **how(case))
    assert total.fields == expected(case)
    if "expected_stream" not in case:
        return
    # The peer's deltas need not be cut where ours are: they add up to the same, separators between messages aside.
    peer: dict[str, str] = {}
    for delta in filter(None, case["expected_stream"]):
        for name in ("reasoning", "content"):
            peer[name] = peer.get(name, "") + (delta.get(name) or "")
        for call in delta.get("tool_calls", ()):
            arguments = call["arguments"]
            # ollama hands arguments out as an object.
            text = arguments if isinstance(arguments, str) else json.dumps(arguments, separators=(",", ":"))
            place = f"call {call.get('index', 0)}"
            peer[place] = peer.get(place, call["name"] or "") + text
    ours = {"reasoning": total.sum.reasoning_content or "", "content": total.sum.content or ""}
    ours |= {f"call {n}": f"{call.name}{call.arguments}" for n, call in enumerate(total.sum.tool_calls)}
    squeezed = [{name: text.replace("\n", "") for name, text in side.items() if text} for side in (peer, ours)]
    assert squeezed[0] == squeezed[1]
