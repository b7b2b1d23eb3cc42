"""`ray.data.llm` with the plugin's `split` as its postprocess: a real vLLM says the cases, and each comes out exact."""

from __future__ import annotations

import importlib.util
import json
from typing import Any

import pytest

if not importlib.util.find_spec("ray") or not importlib.util.find_spec("vllm"):
    pytest.skip("Ray and vLLM are not installed together: make ray", allow_module_level=True)

from vllm_rig.cases import load, right
from vllm_rig.model import model_directory
from vllm_rig.server import SAYING

from harmony_plugin.prompts import render_prompt
from harmony_plugin.ray import split

from .test_rows import without_ids

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(1800),
    pytest.mark.usefixtures("cluster"),
    pytest.mark.filterwarnings("ignore"),
]
CASES = {case.id: case for case in load()}


def ask(row: dict[str, Any]) -> dict[str, Any]:
    """What the engine is to be given for a case."""
    case = CASES[row["case"]]
    prompt = render_prompt([{"role": "user", "content": "Say what the script says."}], tools=case.tools)
    return {
        "tokenized_prompt": list(prompt),
        "tools": json.dumps(case.tools),
        "sampling_params": {
            "temperature": 0.0,
            "max_tokens": case.script.limit,
            "extra_args": {"script": list(case.ids)},
        },
    }


def test_every_case_is_the_cores() -> None:
    import ray
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    settings = {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    config = vLLMEngineProcessorConfig(
        model_source=str(model_directory("gpt_oss")),
        engine_kwargs={
            "load_format": "dummy",
            "dtype": "bfloat16",
            "enforce_eager": True,
            "max_model_len": 4096,
            "max_num_seqs": 16,
            "logits_processors": [SAYING[1]],
        },
        runtime_env={"env_vars": settings},
        placement_group_config={"bundles": [{"CPU": 1}]},
        batch_size=16,
        concurrency=1,
        chat_template_stage=False,
        tokenize_stage=False,
        detokenize_stage=False,
    )
    processor = build_processor(config, preprocess=ask, postprocess=split)
    rows = processor(ray.data.from_items([{"case": name} for name in CASES])).take_all()
    assert sorted(row["case"] for row in rows) == sorted(CASES)
    for row in rows:
        case = CASES[row["case"]]
        expected = right(case.script, case.tools)
        assert list(row["generated_tokens"]) == list(case.script.seen), case.id
        got = (row["reasoning_content"], row["content"], without_ids(list(row["tool_calls"])))
        assert got == expected.fields, case.id
        assert row["reasoning_tokens"] == expected.reasoning_tokens, case.id
