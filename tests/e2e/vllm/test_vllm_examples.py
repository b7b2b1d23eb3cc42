"""The examples for vLLM run as they stand; only what the model says is scripted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vllm_rig.examples import ANSWER, CALL, run_example
from vllm_rig.model import model_directory


def test_the_client_runs_a_tool_loop(server: Any, tmp_path: Path) -> None:
    said = run_example(tmp_path, "vllm_client.py", [CALL, ANSWER], f"{server.url}/v1")
    lines = said.splitlines()
    assert lines[0] == "I need the weather."
    assert lines[1].startswith("call: ")
    assert "get_weather" in lines[1]
    assert lines[2] == "It is clear.No umbrella."


def test_offline_chat_runs_a_tool_loop(tmp_path: Path) -> None:
    options = ["--load-format", "dummy", "--enforce-eager", "--max-model-len", "2048", "--max-tokens", "200"]
    said = run_example(tmp_path, "vllm_offline_chat.py", [CALL, ANSWER], str(model_directory("gpt_oss")), *options)
    assert 'call:      get_weather {"city": "Rome"} -> {"city": "Rome", "sky": "clear", "celsius": 21}' in said
    assert "finish:    tool_calls" in said
    assert "reasoning: It is clear.\ncontent:   No umbrella.\nfinish:    stop\n" in said
