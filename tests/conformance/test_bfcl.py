"""Right calls of the Berkeley Function Calling Leaderboard, in every header shape, through the core.

tests/cases/bfcl.jsonl: two short cases of each category, as they stand in bfcl-eval 2026.3.23 (Apache-2.0), question
and answer in one line. `make conformance` sends all of them, and through vLLM's parsers and the servers, too.
"""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from conformance import bfcl, transport

LINES = (Path(__file__).parents[1] / "cases" / "bfcl.jsonl").read_text("utf-8").splitlines()
CASES = [bfcl.case(line["category"], line, line["ground_truth"]) for line in map(json.loads, LINES)]


@pytest.mark.parametrize("subject", [each for each in transport.SUBJECTS if each.name.startswith("core")])
def test_every_call_comes_through(subject: transport.Subject) -> None:
    counted = transport.in_process(CASES, subject)
    assert counted.faults == []
    assert counted.verbatim.total() == len(CASES) * len(bfcl.SHAPES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_calls_are_right_by_the_tools(case: bfcl.Case) -> None:
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in case.tools}
    for name, arguments in zip(case.names, case.arguments, strict=True):
        jsonschema.Draft202012Validator.check_schema(schemas[name])
        jsonschema.validate(arguments, schemas[name])


def test_what_gets_lost_is_found() -> None:
    output = next(bfcl.outputs(CASES[0]))
    reasoning, content, calls = right = transport.expected(output)
    (name, arguments), *_ = calls
    respaced = json.dumps(json.loads(arguments), indent=7)

    def told(found: transport.Fields) -> tuple[bool, bool]:
        fault = transport.fault("", found, right, output)
        return fault is not None, fault is not None and fault.same

    assert told((reasoning, content, list(calls))) == (False, False)
    assert told((reasoning, content, [(name, respaced)])) == (True, True)
    assert told((reasoning, content, [(name, arguments[:-1])])) == (True, False)
    assert told((reasoning, "leaked", list(calls))) == (True, False)
    assert told((reasoning, content, [])) == (True, False)
