"""Runs the examples for vLLM as they stand, with every reply scripted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from .replies import encode
from .server import environment

EXAMPLES = Path(__file__).parents[3] / "examples"
CALL = (
    "<|channel|>analysis<|message|>I need the weather.<|end|><|start|>assistant"
    '<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city": "Rome"}<|call|>'
)
ANSWER = (
    "<|channel|>analysis<|message|>It is clear.<|end|><|start|>assistant"
    "<|channel|>final<|message|>No umbrella.<|return|>"
)

# Runs an example with every reply scripted: `run.py EXAMPLE SCRIPTS ARGUMENTS…`.
DRIVER = """
import json, runpy, sys

example, scripts = sys.argv[1], iter(json.loads(sys.argv[2]))
sys.argv = [example, *sys.argv[3:]]
if example.endswith("tool_loop.py"):
    from openai.resources.chat import Completions

    create = Completions.create

    def scripted(self, **given):
        return create(self, **given, extra_body={"vllm_xargs": {"script": next(scripts)}})

    Completions.create = scripted
elif example.endswith("route.py"):
    import httpx

    stream = httpx.stream

    def scripted(method, url, json, **given):
        # vLLM 0.32's rejection sampler for CPUs draws others than the forced tokens at a temperature.
        json["sampling_params"] |= {"temperature": 0, "extra_args": {"script": next(scripts)}}
        return stream(method, url, json=json, **given)

    httpx.stream = scripted
elif example.endswith("transformers_stream.py"):
    import transformers

    class Scripted(transformers.LogitsProcessor):
        def __init__(self, ids, start):
            self.ids, self.start = ids, start

        def __call__(self, input_ids, scores):
            scores[:, self.ids[input_ids.shape[1] - self.start]] = 1e4
            return scores

    def loaded(path, **given):
        # The tests' model has no weights: random ones.
        model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.from_pretrained(path))
        generate = model.generate

        def scripted(prompt, **given):
            processors = transformers.LogitsProcessorList([Scripted(next(scripts), prompt.shape[1])])
            return generate(prompt, logits_processor=processors, **given)

        model.generate = scripted
        return model

    transformers.AutoModelForCausalLM.from_pretrained = loaded
else:
    import vllm

    Engine, Params = vllm.LLM, vllm.SamplingParams
    processors = ["vllm_rig.scripted_tokens:ScriptedTokens"]
    vllm.LLM = lambda *given, **named: Engine(*given, **named, logits_processors=processors)
    vllm.SamplingParams = lambda **given: Params(**given, extra_args={"script": next(scripts)})
if __name__ == "__main__":
    runpy.run_path(example, run_name="__main__")
"""


def run_example(tmp_path: Path, name: str, replies: list[str], *arguments: str, url: str = "") -> str:
    driver = tmp_path / "run.py"
    driver.write_text(DRIVER)
    scripts = json.dumps([encode(reply) for reply in replies])
    done = subprocess.run(
        [sys.executable, str(driver), str(EXAMPLES / name), scripts, *arguments],
        env=environment() | ({"OPENAI_BASE_URL": f"{url}/v1"} if url else {}),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout
