"""Offline generation with vLLM from token ids: prompts by `harmony_plugin.prompts`, replies by `harmony_plugin.parse`.

    python examples/vllm_offline_generate.py openai/gpt-oss-20b

The prompt is built as token ids, so that nothing a user writes can forge a marker, and the reply is split from token
ids. A batch of requests, as in evaluation or data generation; the reasoning tokens of each are counted.
"""

from __future__ import annotations

import argparse

from harmony_plugin import parse
from harmony_plugin.prompts import render_prompt

QUESTIONS = [
    "Why is the sky blue? One sentence.",
    "What does the marker <|end|> mean in Harmony?",
    "Count from 1 to 5.",
]
TOOLS = [
    {
        "type": "function",
        "function": {"name": "calculate", "parameters": {"type": "object", "properties": {"term": {"type": "string"}}}},
    }
]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("model")
    arguments.add_argument("--load-format", default="auto")
    arguments.add_argument("--max-tokens", type=int, default=512)
    arguments.add_argument("--max-model-len", type=int, default=8192)
    arguments.add_argument("--enforce-eager", action="store_true", help="start sooner, run slower")
    options = arguments.parse_args()

    from vllm import LLM, SamplingParams

    llm = LLM(
        options.model,
        load_format=options.load_format,
        max_model_len=options.max_model_len,
        enforce_eager=options.enforce_eager,
    )
    prompts = [render_prompt([{"role": "user", "content": question}], tools=TOOLS) for question in QUESTIONS]
    results = llm.generate(
        [{"prompt_token_ids": list(prompt)} for prompt in prompts],
        SamplingParams(temperature=1.0, max_tokens=options.max_tokens, detokenize=False),
        use_tqdm=False,
    )
    for question, result in zip(QUESTIONS, results, strict=True):
        output = result.outputs[0]
        reply = parse(output.token_ids, prompt=result.prompt_token_ids, tools=TOOLS)
        print(f"> {question}")
        print(f"  reasoning ({reply.reasoning_tokens} tokens): {reply.reasoning_content}")
        print(f"  content: {reply.content}")
        for call in reply.tool_calls:
            print(f"  call: {call.name}({call.arguments})")
        print(f"  finish: {reply.finish_reason(cut=output.finish_reason == 'length')}, issues: {len(reply.issues)}")


if __name__ == "__main__":
    main()
