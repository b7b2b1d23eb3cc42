"""Options: every setting of the core, as one typed object. Reads no environment: the adapters do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Literal, get_args

from .dialect import Dialect, FrozenDict

__all__ = ["Options", "Output", "Target"]

#: Where a channel's text goes.
Target = Literal["content", "reasoning", "drop"]
#: What becomes of tool calls.
Output = Literal["openai_tool_calls", "final_only", "final_plus_tools_text"]


@dataclass(frozen=True, kw_only=True, repr=False)
class Options:
    """How to split. The defaults are what an OpenAI client expects.

    >>> from harmony_plugin import Options, parse
    >>> parse("<|channel|>commentary<|message|>I look it up.<|end|>", options=Options(commentary="reasoning")).content
    >>> Options(commentary="reasoning")
    Options(commentary='reasoning')

    Args:
        strict: raise `HarmonyParseError` at the first issue instead of recovering.
        commentary: where a preamble goes, that is commentary without a recipient.
        channels: custom channels and where their text goes, by name.
        dialect: how the markers are spelled.
        arguments: ``verbatim`` passes a call's arguments on as the model wrote them. ``repair`` mends what is not JSON
            with the json-repair library (extra ``repair``); such a call is then sent whole, at its end.
        keep: keep the messages for `Stream.reply`. Without, memory stays flat, and arguments are not checked to be JSON
            (unless strict).
        builtin_tools: calls of gpt-oss's own tools (python, browser, container) that the request does not declare.
            ``auto``: a tool call where the request offers tools (an agent answers that there is no such tool, and the
            model goes on), else as ``hide``. ``hide``: reasoning where they stand on the analysis channel, else in an
            issue. ``tool_calls``: always a tool call, for hosts that run them.
        tool_choice: ``none`` drops every call with an issue, as the client asked for none.
        enabled: False splits nothing: the whole output is content, markers and all.
        output: ``openai_tool_calls``; ``final_only`` leaves calls out, with an issue; ``final_plus_tools_text`` writes
            them into the content, as ``get_weather({"city": "Rome"})``.
        reasoning: ``drop`` leaves reasoning out, with an issue that holds it; its tokens are counted all the same.

    Raises:
        ValueError: a value that is not one of these.
    """

    strict: bool = False
    commentary: Target = "content"
    channels: Mapping[str, Target] = field(default_factory=dict)
    dialect: Dialect = field(default_factory=Dialect)
    arguments: Literal["verbatim", "repair"] = "verbatim"
    keep: bool = True
    builtin_tools: Literal["auto", "hide", "tool_calls"] = "auto"
    tool_choice: Literal["auto", "none"] = "auto"
    enabled: bool = True
    output: Output = "openai_tool_calls"
    reasoning: Literal["keep", "drop"] = "keep"

    def __post_init__(self) -> None:
        targets = get_args(Target)
        for name, value, allowed in (
            ("commentary", self.commentary, targets),
            ("arguments", self.arguments, ("verbatim", "repair")),
            ("builtin_tools", self.builtin_tools, ("auto", "hide", "tool_calls")),
            ("tool_choice", self.tool_choice, ("auto", "none")),
            ("output", self.output, get_args(Output)),
            ("reasoning", self.reasoning, ("keep", "drop")),
            *((f"channels[{channel!r}]", target, targets) for channel, target in self.channels.items()),
        ):
            if value not in allowed:
                raise ValueError(f"Options({name}={value!r}): it is one of {', '.join(map(repr, allowed))}")
        object.__setattr__(self, "channels", FrozenDict(self.channels))

    def __repr__(self) -> str:
        """What differs from the defaults."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return (
            f"Options({', '.join(f'{name}={value!r}' for name, value in values if value != getattr(_DEFAULTS, name))})"
        )

    def __hash__(self) -> int:
        values = (getattr(self, field.name) for field in fields(self) if field.name != "channels")
        return hash((*values, tuple(sorted(self.channels.items()))))


_DEFAULTS = Options()
