"""`python -m fuzz.vllm_schemas`: no JSON schema turns into an error because headers are held to the format.

Random schemas, sound and broken, as the parameters of a strict tool and as a response format. Each request goes the way
that it goes in vLLM: the plugin's parser, vLLM's check, vLLM's grammar backend. What stock vLLM answers (headers free)
must be no better than what is answered with `headers: constrain`. Needs vLLM; the engine itself does not run.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "rigs"))

from vllm_rig.model import STOP_IDS, VOCABULARY_SIZE

from vllm_plugin.asking import chat
from vllm_plugin.conftest import composed, o200k

SLOW = 10.0
TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")


def schema(random: Random, depth: int = 0) -> Any:
    """A schema with every keyword there is, sound more often than not."""
    if depth > 3 or random.random() < 0.05:
        return random.choice([{}, True, False, {"type": random.choice(TYPES)}])
    kind = random.choice(TYPES)
    made: dict[str, Any] = {"type": kind} if random.random() < 0.9 else {}
    keywords: dict[str, dict[str, Any]] = {
        "object": {
            "properties": {random.choice("abcdé 中"): schema(random, depth + 1) for _ in range(random.randrange(4))},
            "required": random.choice([[], ["a"], ["a", "zz"], "a"]),
            "additionalProperties": random.choice([False, True, {}, {"type": "string"}]),
            "minProperties": random.choice([0, 1, -1]),
            "patternProperties": {random.choice(["^a", "(", "x{2}"]): {"type": "integer"}},
            "propertyNames": {"pattern": "^[a-z]+$"},
        },
        "array": {
            "items": schema(random, depth + 1),
            "prefixItems": [schema(random, depth + 1)],
            "minItems": random.choice([0, 2, 5]),
            "maxItems": random.choice([0, 3, 1]),
            "uniqueItems": True,
            "contains": {"type": "integer"},
        },
        "string": {
            "pattern": random.choice(["^[a-z]{2,4}$", "(?=x)y", "[", r"\d+", r"(a)\1"]),
            "format": random.choice(["date-time", "email", "uuid", "uri", "no-such-format"]),
            "minLength": random.choice([0, 3]),
            "maxLength": random.choice([2, 10, -1]),
            "enum": random.choice([["x", "y"], ["<|end|>", "quote\"'\\"], []]),
        },
        "integer": {"minimum": random.choice([0, -5, 10]), "maximum": random.choice([5, 10**20]), "multipleOf": 3},
        "number": {"minimum": -1.5, "exclusiveMaximum": random.choice([1.5, -9]), "multipleOf": 0.1},
    }
    for name, value in keywords.get(kind, {}).items():
        if random.random() < 0.3:
            made[name] = value
    for name in ("anyOf", "oneOf", "allOf"):
        if random.random() < 0.08:
            made[name] = [schema(random, depth + 1) for _ in range(random.randrange(3))]
    if random.random() < 0.05:
        made["$ref"] = random.choice(["#", "#/$defs/d", "#/nowhere", "https://example.org/s"])
    if depth == 0 and random.random() < 0.3:
        made["$defs"] = {"d": schema(random, 2)}
    for name, value in (("const", random.choice([1, "x", None])), ("not", {"type": "null"}), ("unknown", 5)):
        if random.random() < 0.04:
            made[name] = value
    return made


def outcome(backend: Any, request: Any) -> str | None:
    """What is wrong with a request, as vLLM finds it; None: it is answered."""
    from vllm.v1.structured_output.backend_types import StructuredOutputOptions

    model = SimpleNamespace(is_diffusion=False, max_logprobs=20, get_vocab_size=lambda: VOCABULARY_SIZE)
    try:
        params = composed(gpt_oss=True)(o200k(), request.tools).adjust_request(request).to_sampling_params(100, {})
        params.verify(model, None, SimpleNamespace(backend="auto"), o200k())
        structured = params.structured_outputs
        if structured is not None and structured._backend == "xgrammar":
            backend.compile_grammar(
                StructuredOutputOptions.STRUCTURAL_TAG, structured.structural_tag, stop_token_ids=set(STOP_IDS)
            )
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--schemas", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    from vllm.v1.structured_output.backend_xgrammar import XgrammarBackend

    config = SimpleNamespace(
        structured_outputs_config=SimpleNamespace(disable_any_whitespace=False),
        model_config=SimpleNamespace(hf_config=SimpleNamespace(model_type="gpt_oss")),
        speculative_config=None,
    )
    composed(gpt_oss=True)
    backend = XgrammarBackend(config, tokenizer=o200k(), vocab_size=VOCABULARY_SIZE)
    held = {"chat_template_kwargs": {"harmony": {"headers": "constrain"}}}
    refused = found = 0
    slowest = 0.0
    for seed in range(arguments.seed, arguments.seed + arguments.schemas):
        made = schema(Random(seed))
        function = {"name": "f", "parameters": made if isinstance(made, dict) else {}, "strict": True}
        options: dict[str, Any] = {
            "tools": [{"type": "function", "function": function}],
            "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": made}},
        }
        name = ("tools", "response_format")[seed % 2]
        tools, format = options["tools"] if name == "tools" else (), {} if name == "tools" else {name: options[name]}
        try:
            stock = outcome(backend, chat(tools, **format))
        except ValueError:  # vLLM's request model refuses it
            continue
        began = time.perf_counter()
        ours = outcome(backend, chat(tools, **format, **held))
        slowest = max(slowest, time.perf_counter() - began)
        refused += stock is not None
        if ours is not None and stock is None:
            found += 1
            print(f"seed {seed}, {name}: {ours}\n  {made}", flush=True)
    print(
        f"{arguments.schemas} schemas, {refused} refused by stock vLLM, {found} by the plugin alone; the slowest took "
        f"{slowest:.1f} s"
    )
    return int(found > 0 or slowest > SLOW)


if __name__ == "__main__":
    sys.exit(main())
