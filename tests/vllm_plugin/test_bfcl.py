"""The leaderboard's calls of tests/conformance/test_bfcl.py through the plugin's parser, as vLLM's server calls it."""

from __future__ import annotations

import json
from pathlib import Path

from conformance import bfcl, transport

LINES = (Path(__file__).parents[1] / "cases" / "bfcl.jsonl").read_text("utf-8").splitlines()


def test_every_call_comes_through() -> None:
    cases = [bfcl.case(line["category"], line, line["ground_truth"]) for line in map(json.loads, LINES)]
    (plugin,) = [subject for subject in transport.SUBJECTS if subject.name == "vLLM + plugin"]
    assert transport.in_process(cases, plugin).faults == []
