"""Stop strings, one table for the core and both servers: what the model says, and the reply that the client gets."""

from __future__ import annotations

from dataclasses import dataclass

THINK = "<|channel|>analysis<|message|>Let me think.<|end|><|start|>assistant"
CALL = THINK + '<|channel|>commentary to=functions.get_weather json<|message|>{"city": "Rome"}<|call|>'


@dataclass(frozen=True)
class Stopping:
    """One reply. ``said``: how much of the output is generated, as text; None: all of it."""

    name: str
    raw: str
    stop: tuple[str, ...]
    reasoning: str | None = None
    content: str | None = None
    tool_calls: tuple[tuple[str, str], ...] = ()
    matched: str | None = None
    in_call: bool = False
    include: bool = False
    said: str | None = None

    @property
    def fields(self) -> tuple[str | None, str | None, list[tuple[str, str]]]:
        return self.reasoning, self.content, list(self.tool_calls)


def _final(text: str) -> str:
    return f"{THINK}<|channel|>final<|message|>{text}<|return|>"


STOPPING = (
    Stopping(
        "inside-a-token",
        _final("It is sunny. Observation: none"),
        ("Observ",),
        "Let me think.",
        "It is sunny. ",
        matched="Observ",
        said=THINK + "<|channel|>final<|message|>It is sunny. Observation",
    ),
    Stopping(
        "across-tokens",
        _final("One, two, three, four"),
        ("o, thr", "four"),
        "Let me think.",
        "One, tw",
        matched="o, thr",
    ),
    Stopping(
        "in-reasoning",
        _final("It is sunny."),
        ("think",),
        "Let me ",
        matched="think",
        said="<|channel|>analysis<|message|>Let me think",
    ),
    Stopping(
        "in-arguments",
        CALL,
        ("Rome",),
        "Let me think.",
        None,
        (("get_weather", '{"city": "'),),
        matched="Rome",
        in_call=True,
        said=CALL.partition('"}')[0],
    ),
    Stopping("never-met", _final("It is sunny."), ("rain",), "Let me think.", "It is sunny."),
    Stopping("begun-only", _final("It is sun"), ("sunny",), "Let me think.", "It is sun"),
    # The words of headers: no text that a client sees.
    Stopping(
        "header-words",
        _final("It is sunny."),
        ("final", "analysis", "assistant", "message"),
        "Let me think.",
        "It is sunny.",
    ),
    Stopping(
        "header-words-of-a-call",
        CALL,
        ("json", "commentary", "functions", "get_weather"),
        "Let me think.",
        None,
        (("get_weather", '{"city": "Rome"}'),),
    ),
    Stopping(
        "a-header-word-in-text",
        _final("In the final analysis it is sunny."),
        ("final",),
        "Let me think.",
        "In the ",
        matched="final",
        said=THINK + "<|channel|>final<|message|>In the final",
    ),
    Stopping(
        "not-across-messages",
        "<|channel|>commentary<|message|>One<|end|><|start|>assistant<|channel|>final<|message|>Two<|return|>",
        ("One\nT", "OneT", "eTwo"),
        None,
        "One\nTwo",
    ),
    Stopping("ends-first", _final("abcdef ghi"), ("cdef", "de"), "Let me think.", "abc", matched="de"),
    Stopping("begins-first-at-a-tie", _final("abcdef ghi"), ("def", "bcdef"), "Let me think.", "a", matched="bcdef"),
    Stopping("nothing-in-front", _final("Observation: none"), ("Observ",), "Let me think.", None, matched="Observ"),
    Stopping(
        "included",
        _final("It is sunny in Rome."),
        ("sunny",),
        "Let me think.",
        "It is sunny",
        matched="sunny",
        include=True,
    ),
    Stopping(
        "included-inside-a-token",
        _final("Observation"),
        ("Observ",),
        "Let me think.",
        "Observ",
        (),
        "Observ",
        False,
        True,
    ),
    Stopping(
        "looks-like-one-twice",
        _final("aXabXabaXabab|tail"),
        ("Xabab|", "XabX"),
        "Let me think.",
        "a",
        matched="XabX",
    ),
    Stopping("no-string", _final("It is sunny."), ("",), "Let me think.", "It is sunny."),
    Stopping("many-scripts", _final("北京欢迎你 🦀🫠 நன்றி"), ("🫠",), "Let me think.", "北京欢迎你 🦀", matched="🫠"),
)
