"""A process in which settings are at work, as in a server: read once, when the plugin is loaded. test_settings runs
it."""

from __future__ import annotations

import json
import logging
from types import SimpleNamespace
from typing import Any

from feeding import encode
from vllm_plugin.asking import PROMPT, chat, responses
from vllm_plugin.conftest import composed, o200k

SETTINGS = {
    "HARMONY_REASONING_NAMES": "reasoning_content",
    "HARMONY_MAX_REPLY_TOKENS": "50",
    "HARMONY_STOP": "zz",
    "HARMONY_REASONING_EFFORT": "high",
    "HARMONY_MAX_TOKENS_BEFORE_FINAL": "10",
    "HARMONY_DEBUG": "true",
    "HARMONY_METRICS": "false",
    "HARMONY_OUTPUT": "final_plus_tools_text",
}
REASONED = "<|channel|>analysis<|message|>Think.<|channel|>final<|message|>Hello!<|return|>"
TOLD = {
    "issues": [
        {"code": "missing_end", "offset": 5, "text": "", "unit": "tokens"},
        {"code": "missing_start", "offset": 5, "text": "", "unit": "tokens"},
    ],
    "channels": {"analysis": 1, "final": 1},
}


def requests(parser_class: Any, effort: str | None) -> None:
    """What is asked for is brought to the server's bounds."""
    request = chat(stop="a", max_completion_tokens=100)
    parser_class(o200k(), None).adjust_request(request)
    asked = request.stop, request.max_completion_tokens, request.reasoning_effort
    assert asked == (["a", "zz"], 50, effort), request
    request = chat(max_tokens=7, reasoning_effort="low")
    parser_class(o200k(), None).adjust_request(request)
    assert (request.max_tokens, request.max_completion_tokens, request.reasoning_effort) == (7, None, "low"), request
    request = responses()
    parser_class(o200k(), None).adjust_request(request)
    asked = request.stop, request.max_output_tokens, getattr(request.reasoning, "effort", None)
    assert asked == (["zz"], 50, effort), request


def names_and_debugging(parser_class: Any, lines: list[str]) -> None:
    """One name for reasoning; what debugging shows stands in a stream's last delta, and in the log."""
    parser, ids, request = parser_class(o200k(), None), encode(REASONED), chat()
    deltas = [
        parser.parse_delta("", [token], request, list(PROMPT), finished=place == len(ids) - 1)
        for place, token in enumerate(ids)
    ]
    shown = [json.loads(delta.model_dump_json(exclude_unset=True)) for delta in deltas if delta is not None]
    assert not any("reasoning" in delta for delta in shown), shown
    assert "".join(delta.get("reasoning_content", "") for delta in shown) == "Think."
    assert [delta.get("harmony") for delta in shown] == [None] * (len(shown) - 1) + [TOLD], shown
    (line,) = lines
    told = json.loads(line.removeprefix("reply "))
    assert (told["id"], told["model"]) == (request.request_id, "m"), told
    assert [message["characters"] for message in told["messages"]] == [6, 6], told
    assert told["microseconds"] > 0, told
    lines.clear()
    parser_class(o200k(), None).parse("", request, model_output_token_ids=ids)
    assert len(lines) == 1, lines


def calls_as_text(parser_class: Any) -> None:
    ids = encode("<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}<|call|>")
    parsed = parser_class(o200k(), None).parse("", chat(["f"]), model_output_token_ids=ids)
    assert parsed == (None, "f({})", None), parsed


def patience(parser_class: Any) -> None:
    """The detokenizer ends a reply that has no answer in time, and vLLM gives it out as cut."""
    from vllm.v1.engine import FinishReason
    from vllm.v1.engine.detokenizer import IncrementalDetokenizer
    from vllm.v1.engine.output_processor import RequestState

    def updates(output: str) -> list[Any]:
        request = chat(["f"])
        parser_class(o200k(), None).adjust_request(request)
        engine_request = SimpleNamespace(
            request_id="r",
            sampling_params=request.to_sampling_params(100, {}),
            prompt_token_ids=list(PROMPT),
            prompt_embeds=None,
        )
        detokenizer = IncrementalDetokenizer.from_new_request(o200k(), engine_request)
        return [detokenizer.update([token], False) for token in encode(output)]

    late = updates("<|channel|>analysis<|message|>" + " on" * 9)
    assert [bool(stop) for stop in late] == [False] * 9 + [True] * 3, late
    assert not any(updates("<|channel|>final<|message|>" + " on" * 9))
    assert not any(updates("<|channel|>commentary to=functions.f<|message|>" + " on" * 9))

    seen: list[Any] = []
    from harmony_plugin.vllm.engine_stops import on_outputs

    assert hasattr(RequestState.make_request_output, "_harmony_plugin"), "vLLM's own is wrapped"
    for reason in (late[-1], "zz"):
        on_outputs(lambda *given: seen.append(given))(None, [], None, FinishReason.STOP, reason)
    assert [given[3:] for given in seen] == [(FinishReason.LENGTH, None), (FinishReason.STOP, "zz")], seen


def main() -> None:
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("harmony_plugin.replies").addHandler(handler)
    # How other models are told of an effort is their template's.
    for parser_class, effort in ((composed(True), "high"), (composed(False), None)):
        requests(parser_class, effort)
        lines.clear()
        names_and_debugging(parser_class, lines)
        calls_as_text(parser_class)
        patience(parser_class)
    from prometheus_client import REGISTRY

    assert not REGISTRY.get_sample_value("harmony_replies_total", {"outcome": "repaired"})
    print("all well")


if __name__ == "__main__":
    main()
