"""The examples for vLLM run as they stand; only what the model says is scripted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vllm_rig.examples import ANSWER, CALL, run_example
from vllm_rig.model import model_directory

#: Starts sooner, and fits the tests' model.
ENGINE = json.dumps({"load_format": "dummy", "enforce_eager": True, "max_model_len": 2048})


def test_the_client_runs_a_tool_loop(server: Any, tmp_path: Path) -> None:
    lines = run_example(tmp_path, "server_tool_loop.py", [CALL, ANSWER], url=server.url).splitlines()
    assert lines[0] == "I need the weather."
    assert lines[1].startswith("call: ")
    assert "get_weather" in lines[1]
    assert lines[2] == "It is clear.No umbrella."


def test_offline_chat_runs_a_tool_loop(tmp_path: Path) -> None:
    said = run_example(tmp_path, "vllm_offline_chat.py", [CALL, ANSWER], str(model_directory("gpt_oss")), ENGINE)
    assert 'call:      get_weather {"city": "Rome"} -> {"city": "Rome", "sky": "clear", "celsius": 21}' in said
    assert "finish:    tool_calls" in said
    assert "reasoning: It is clear.\ncontent:   No umbrella.\nfinish:    stop\n" in said


def test_an_offline_batch(tmp_path: Path) -> None:
    broken = ANSWER.replace("<|end|>", "")
    replies = [ANSWER, broken, ANSWER]
    said = run_example(tmp_path, "vllm_offline_batch.py", replies, str(model_directory("gpt_oss")), ENGINE)
    assert said.count("  content: No umbrella.\n  finish: stop, issues: ") == 3
    assert said.count("  reasoning (4 tokens): It is clear.\n") == 3
    assert said.count("issues: 0") == 2


def test_transformers_stream(tmp_path: Path) -> None:
    """transformers comes with vLLM."""
    said = run_example(tmp_path, "transformers_stream.py", [ANSWER], str(model_directory("gpt_oss")), "An umbrella?")
    assert said == "\033[2mIt\033[0m\033[2m is\033[0m\033[2m clear\033[0m\033[2m.\033[0mNo umbrella.\nstop\n"
