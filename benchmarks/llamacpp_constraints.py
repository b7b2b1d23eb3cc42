"""What constraints cost a token: headers, and a body held to a JSON schema, over the same reply unconstrained.

The replies are scripted: every run decodes the same ids in the real loop on the tiny model, in turns; CPU time of one
thread, best of several turns. `text GBNF` is llama.cpp's own grammar for the same schema over the bare JSON, the stock
way: it cannot hold Harmony's markers.

A script is a logits processor of its own, which must see all scores: its mask goes through llama-cpp-python's own way.
`unscripted` is the way that requests go that bring no processors, on a model that talks (see `talking_model`): the mask
goes to llama.cpp's candidates directly, and where few ids are left the samplers have less to do. The model writes what
it may, so there the free reply and the held one are not the same text.

    python benchmarks/llamacpp_constraints.py [--turns 5]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import llama_cpp
import talking_model
from llamacpp_servers import RECORDS, STRING, as_openai

from harmony_plugin.core import harmony_encoding
from harmony_plugin.demo.model import build_model
from harmony_plugin.demo.script import Replay
from harmony_plugin.llamacpp import HarmonyChatHandler

LENGTH = 300
MESSAGES = [{"role": "user", "content": "hi"}]
RECORD = {"name": "Ada", "born": 1815, "tags": ["a", "b"], "at": {"x": 1.5, "y": -2.25}, "ok": True}
DATA = [RECORD] * 8
SCHEMA = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "born": {"type": "integer"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "at": {
                "type": "object",
                "properties": {"x": {"type": "number"}, "y": {"type": "number"}},
                "required": ["x", "y"],
                "additionalProperties": False,
            },
            "ok": {"type": "boolean"},
        },
        "required": ["name", "born", "tags", "at", "ok"],
        "additionalProperties": False,
    },
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "records", "schema": SCHEMA, "strict": True}}
SHORT = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant"


def side_by_side(runs: Sequence[Callable[[], int]], turns: int) -> list[tuple[float, int]]:
    """CPU milliseconds a token of each, the best of so many turns in turn, and how many tokens that was."""
    best = [(float("inf"), 0) for _ in runs]
    for _ in range(turns):
        for place, run in enumerate(runs):
            begin = time.process_time()
            count = run()
            best[place] = min(best[place], ((time.process_time() - begin) / count * 1e3, count))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    llama = llama_cpp.Llama(str(build_model()), n_ctx=2048, n_threads=1, n_threads_batch=1, verbose=False)
    encoding = harmony_encoding()
    text = json.dumps(DATA)
    headers = encoding.encode(SHORT * 25 + "<|channel|>final<|message|>Hi<|return|>", allowed_special="all")
    shaped = encoding.encode(f"<|channel|>final<|message|>{text}<|return|>", allowed_special="all")
    bare = encoding.encode(text + "<|return|>", allowed_special="all")
    script: list[int] = []
    handler = HarmonyChatHandler(logits_processors=lambda prompt, request: [Replay(script, len(prompt))])
    begin = time.process_time()
    handler.prepare(llama)
    print(f"vocabulary checked and made ready for llguidance, once a model: {time.process_time() - begin:.2f} s")

    def reply(ids: list[int], **request: Any) -> Callable[[], int]:
        def run() -> int:
            script[:] = ids
            chunks = handler(
                llama=llama, messages=MESSAGES, stream=True, stream_options={"include_usage": True}, **request
            )
            *_, last = chunks
            count = int(last["usage"]["completion_tokens"])
            assert count == len(ids), (count, len(ids))
            return count

        return run

    prompt = handler.prompt(llama, messages=MESSAGES)
    grammar = llama_cpp.LlamaGrammar.from_json_schema(json.dumps(SCHEMA), verbose=False)

    def stock(held: bool) -> Callable[[], int]:
        def run() -> int:
            processors = llama_cpp.LogitsProcessorList([Replay(bare, len(prompt))])
            tokens = llama.generate(
                prompt,
                temp=1.0,
                top_k=0,
                top_p=1.0,
                min_p=0.0,
                logits_processor=processors,
                grammar=grammar if held else None,
            )
            count = 0
            for token in tokens:
                count += 1
                if token == bare[-1]:
                    break
            tokens.close()
            return count

        return run

    talker = llama_cpp.Llama(str(talking_model.build()), n_ctx=2048, n_threads=1, n_threads_batch=1, verbose=False)
    plain = HarmonyChatHandler()

    def talk(**request: Any) -> Callable[[], int]:
        def run() -> int:
            for _ in plain(llama=talker, messages=MESSAGES, stream=True, seed=1, max_tokens=LENGTH, **request):
                pass
            return LENGTH

        return run

    free = talk(headers="free")
    pairs = {
        "headers (25 short messages)": (reply(headers, headers="free"), reply(headers, headers="constrain")),
        "JSON schema": (reply(shaped, headers="free"), reply(shaped, response_format=FORMAT)),
        "text GBNF, stock": (stock(False), stock(True)),
        "unscripted: headers, long text": (free, talk(headers="constrain")),
        "unscripted: one long string": (free, talk(response_format=as_openai(STRING))),
        "unscripted: small records": (free, talk(response_format=as_openai(RECORDS))),
    }
    print(f"{'CPU ms a token':32}{'free':>10}{'held':>10}{'cost':>10}{'tokens':>10}")
    for name, runs in pairs.items():
        (free_ms, _), (held_ms, count) = side_by_side(runs, arguments.turns)
        print(f"{name:32}{free_ms:10.3f}{held_ms:10.3f}{held_ms - free_ms:+10.3f}{count:10}")


if __name__ == "__main__":
    main()
