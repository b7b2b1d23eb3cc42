"""An offline batch with vLLM, from token ids: prompts by `harmony_plugin.prompts`, replies by `harmony_plugin.parse`.

    python examples/vllm_offline_batch.py openai/gpt-oss-20b '{"max_model_len": 8192}'     # arguments of LLM, as JSON

The prompt is built as token ids, so that nothing a user writes can forge a marker, and the reply is split from token
ids, as in evaluation or data generation; the reasoning tokens of each are counted.
"""

from __future__ import annotations

import json
import sys

from vllm import LLM, SamplingParams

from harmony_plugin import parse
from harmony_plugin.prompts import render_prompt

QUESTIONS = [
    "Why is the sky blue? One sentence.",
    "What does the marker <|end|> mean in Harmony?",
    "Count from 1 to 5.",
]


def main() -> None:
    llm = LLM(sys.argv[1], **json.loads(sys.argv[2] if len(sys.argv) > 2 else "{}"))
    prompts = [render_prompt([{"role": "user", "content": question}]) for question in QUESTIONS]
    results = llm.generate(
        [{"prompt_token_ids": list(prompt)} for prompt in prompts],
        [SamplingParams(temperature=1.0, max_tokens=1000, detokenize=False) for _ in prompts],
        use_tqdm=False,
    )
    for question, result in zip(QUESTIONS, results, strict=True):
        output = result.outputs[0]
        reply = parse(output.token_ids, prompt=result.prompt_token_ids)
        print(f"> {question}")
        print(f"  reasoning ({reply.reasoning_tokens} tokens): {reply.reasoning_content}")
        print(f"  content: {reply.content}")
        print(f"  finish: {reply.finish_reason(cut=output.finish_reason == 'length')}, issues: {len(reply.issues)}")


if __name__ == "__main__":
    main()
