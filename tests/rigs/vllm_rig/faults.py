"""What stock vLLM gets wrong, as scripts: the model's output, the request, and the reply that a client should get.

The expected replies are written by hand from the splitting rules, not computed: tests hold the plugin to them, and
`benchmarks/vllm_faults.py` puts vLLM's own parser beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .replies import Fields, Script, encode, function_tool

WEATHER = function_tool("get_weather", {"type": "object", "properties": {"city": {"type": "string"}}})
ANALYSIS = "<|channel|>analysis<|message|>Let me think.<|end|>"


@dataclass(frozen=True)
class Fault:
    """One output that stock vLLM turns into a wrong reply."""

    name: str
    what: str
    raw: str
    reasoning: str | None = None
    content: str | None = None
    tool_calls: tuple[tuple[str, str], ...] = ()
    tools: tuple[Mapping[str, Any], ...] = (WEATHER,)
    stop: str | None = None
    no_calls: bool = False  # tool_choice "none"
    budget: int | None = None  # of reasoning, under each API's own name for it
    held: bool = False  # headers are held to the format

    @property
    def script(self) -> Script:
        return Script(tuple(encode(self.raw)))

    @property
    def fields(self) -> Fields:
        return self.reasoning, self.content, list(self.tool_calls)

    def options(self, api: str) -> dict[str, Any]:
        """Keyword arguments for `Clients.ask`."""
        options: dict[str, Any] = {"tools": self.tools}
        if self.stop is not None:
            if api == "chat":
                options["stop"] = [self.stop]
            elif api == "messages":
                options["stop_sequences"] = [self.stop]
            else:
                options["extra"] = {"stop": [self.stop]}
        if self.no_calls:
            options["tool_choice"] = {"type": "none"} if api == "messages" else "none"
        if self.budget is not None:
            thinking = {"type": "enabled", "budget_tokens": self.budget}
            names = {"chat": "thinking_token_budget", "responses": "max_reasoning_tokens"}
            options["extra"] = {"thinking": thinking} if api == "messages" else {names[api]: self.budget}
        if self.held:
            options["extra"] = {"chat_template_kwargs": {"harmony": {"headers": "constrain"}}}
        return options


FAULTS = (
    Fault(
        "arguments-verbatim",
        "arguments are parsed and dumped again, non-ASCII escaped, in whole replies but not in streams",
        "<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>"
        '{"city":"München",  "days": 2.50}<|call|>',
        tool_calls=(("get_weather", '{"city":"München",  "days": 2.50}'),),
    ),
    Fault(
        "missing-start",
        "the answer is lost when `<|start|>` is missing",
        f"{ANALYSIS}<|channel|>final<|message|>It is sunny.<|return|>",
        reasoning="Let me think.",
        content="It is sunny.",
    ),
    Fault(
        "missing-start-role-word",
        "the answer is lost when only the role word is left of the start",
        f"{ANALYSIS}assistant<|channel|>final<|message|>It is sunny.<|return|>",
        reasoning="Let me think.",
        content="It is sunny.",
    ),
    Fault(
        "missing-end",
        "the answer lands in the reasoning when `<|end|>` is missing",
        "<|channel|>analysis<|message|>Let me think.<|channel|>final<|message|>It is sunny.<|return|>",
        reasoning="Let me think.",
        content="It is sunny.",
    ),
    Fault(
        "missing-end-before-start",
        "the same with the next message's `<|start|>` in place",
        "<|channel|>analysis<|message|>Let me think.<|start|>assistant"
        "<|channel|>final<|message|>It is sunny.<|return|>",
        reasoning="Let me think.",
        content="It is sunny.",
    ),
    Fault(
        "truncated-header",
        "a header cut off by the token limit comes out as content, markers and all",
        f"{ANALYSIS}<|start|>assistant<|channel|>comm",
        reasoning="Let me think.",
    ),
    Fault(
        "truncated-call-header",
        "the same for the header of a call",
        f"{ANALYSIS}<|start|>assistant<|channel|>commentary to=functions.get_wea",
        reasoning="Let me think.",
    ),
    Fault(
        "no-markers",
        "text without any marker comes with `<|return|>` in it",
        "It is sunny.<|return|>",
        content="It is sunny.",
    ),
    Fault(
        "header-without-message",
        "a final header without `<|message|>` comes out as raw markup",
        f"{ANALYSIS}<|start|>assistant<|channel|>final" + '{"sky":"clear"}<|return|>',
        reasoning="Let me think.",
        content='{"sky":"clear"}',
    ),
    Fault(
        "endoftext",
        "`<|endoftext|>` in place of `<|return|>` leaks the markers before it",
        f"{ANALYSIS}<|start|>assistant<|channel|>final<|message|>It is sunny.<|endoftext|>",
        reasoning="Let me think.",
        content="It is sunny.",
    ),
    Fault(
        "declared-namespace",
        "a call to a declared tool vanishes, /v1/responses answers 400, when its name begins like a built-in tool's",
        '<|channel|>commentary to=browser.get_weather json<|message|>{"city": "Rome"}<|call|>',
        tools=(function_tool("browser.get_weather"),),
        tool_calls=(("browser.get_weather", '{"city": "Rome"}'),),
    ),
    Fault(
        "undeclared-namespace",
        "a call to a namespace nobody declared becomes something other than a function call, or vanishes",
        '<|channel|>commentary to=weather.lookup json<|message|>{"city": "Rome"}<|call|>',
        tool_calls=(("weather.lookup", '{"city": "Rome"}'),),
    ),
    Fault(
        "misspelled-channel",
        "text of a misspelled channel vanishes; /v1/responses answers 400 or cuts the stream",
        f"{ANALYSIS}<|start|>assistant<|channel|>finall<|message|>It is sunny.<|return|>",
        reasoning="Let me think.",
        content="It is sunny.",
    ),
    Fault(
        "unknown-channel",
        "text of an unknown channel vanishes; /v1/responses answers 400 or cuts the stream",
        f"{ANALYSIS}<|start|>assistant<|channel|>weather<|message|>It is sunny.<|return|>",
        reasoning="Let me think.",
        content="It is sunny.",
    ),
    Fault(
        "two-finals",
        "two final messages are joined by a line break in whole replies and by nothing in streams",
        "<|channel|>final<|message|>One.<|end|><|start|>assistant<|channel|>final<|message|>Two.<|return|>",
        content="One.\nTwo.",
    ),
    Fault(
        "call-without-body",
        "a call with an empty body has no valid arguments",
        "<|channel|>commentary to=functions.get_weather json<|message|><|call|>",
        tool_calls=(("get_weather", "{}"),),
    ),
    Fault(
        "stop-string",
        "a `stop` string and what follows it in the token stay in the reply",
        f"{ANALYSIS}<|start|>assistant<|channel|>final<|message|>It is sunny. Observation: none<|return|>",
        reasoning="Let me think.",
        content="It is sunny. ",
        stop="Observ",
    ),
    Fault(
        "tool-choice-none",
        "`tool_choice: none` is ignored in streams",
        f"{ANALYSIS}<|start|>assistant<|channel|>commentary to=functions.get_weather json<|message|>"
        '{"city":"Rome"}<|call|>',
        reasoning="Let me think.",
        no_calls=True,
    ),
)

#: What stock vLLM does not prevent on gpt-oss, and the plugin does where it is asked to.
LIMITS = (
    Fault(
        "thinking-budget",
        "a thinking budget (1,024 tokens here) is refused with a 400, or not kept",
        f"<|channel|>analysis<|message|>{' word' * 1024} more<|end|>"
        "<|start|>assistant<|channel|>final<|message|>It is sunny.<|return|>",
        reasoning=" word" * 1024,
        content="It is sunny.",
        budget=1024,
    ),
    Fault(
        "undeclared-call-prevented",
        "a header that names a tool which is not offered can be sampled (here `headers: constrain` is asked for)",
        f"{ANALYSIS}<|start|>assistant<|channel|>commentary to=functions.look_up json<|message|>I look.<|return|>",
        reasoning="Let me think.",
        content="I look.",
        tools=(),
        held=True,
    ),
)

ALL = (*FAULTS, *LIMITS)
