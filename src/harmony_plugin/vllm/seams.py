"""What the plugin touches of vLLM's inside: the names, looked up in one place, and the three that it rebinds.

Every other module of the vLLM side takes vLLM's classes from here. Features are detected, not versions; what is missing
raises `UnsupportedVLLM` when the parser is first named, that is at start-up. Knows nothing of Harmony.

Checked against vLLM 0.27.1 to 0.33.0, each:

- ``vllm.parser.harmony.HarmonyParser`` is what ``ParserManager`` takes for ``model_type: gpt_oss``, whatever parsers
  are named, and what ``/v1/responses`` insists on. It is looked up in that module after the named parsers were
  imported, so rebinding it there, as they are imported, puts a subclass in its place.
- ``vllm.parser.abstract_parser.DelegatingParser`` is what ``ParserManager`` composes a reasoning and a tool parser on
  for every other model; looked up in the same way, at the same moment.
- ``vllm.entrypoints.openai.responses.protocol.ResponsesRequest`` is what the routes read requests by. They are imported
  when the server is built, behind the named reasoning parser: rebinding it there has them take a subclass.
- `SERVING` names the methods of the serving layer that `serving` wraps.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from types import ModuleType
from typing import Any

from . import UnsupportedVLLM

__all__ = ["SERVING", "SERVING_WHERE_THERE", "Seams", "check_serving", "load", "loaded"]


class Seams:
    """vLLM's classes, as its own Harmony parser imports them. Built once, by `load`."""

    def __init__(self) -> None:
        self._harmony = _module("vllm.parser.harmony")
        self._delegating = _module("vllm.parser.abstract_parser")
        self._responses = _module(f"{_RESPONSES}.protocol")
        #: The parsers that ours inherit from.
        self.HarmonyParser: Any = self._of("HarmonyParser")
        self.DelegatingParser: Any = _attribute(self._delegating, "DelegatingParser")
        self.ReasoningParser: Any = self._of("GptOssReasoningParser")
        self.ToolParser: Any = self._of("GptOssToolParser")
        #: What they give out.
        self.DeltaMessage: Any = self._of("DeltaMessage")
        self.DeltaToolCall: Any = self._of("DeltaToolCall")
        self.DeltaFunctionCall: Any = self._of("DeltaFunctionCall")
        self.FunctionCall: Any = self._of("FunctionCall")
        self.Segment: Any = self._of("Segment")
        self.ChunkResult: Any = self._of("ChunkResult")
        self.ResponsesRequest: Any = self._of("ResponsesRequest")
        tool_parsers = _module("vllm.tool_parsers.abstract_tool_parser")
        self.ExtractedToolCallInformation: Any = _attribute(tool_parsers, "ExtractedToolCallInformation")
        for name in ("parse", "parse_delta", "process_chunk", "flush"):
            _attribute(self.HarmonyParser, name)
        if "adjust_request" not in vars(self.HarmonyParser):
            # Older ones have no grammars that spell out the headers: the engine would begin them in the wrong place.
            raise UnsupportedVLLM("vllm.parser.harmony.HarmonyParser.adjust_request")
        self._takes(self.HarmonyParser.parse, "model_output_token_ids")
        self._takes(self.HarmonyParser.parse_delta, "delta_token_ids", "prompt_token_ids", "finished")
        if getattr(self.Segment, "_fields", ()) != ("channel", "recipient", "delta", "completed_message"):
            raise UnsupportedVLLM("vllm.parser.harmony.Segment(channel, recipient, delta, completed_message)")
        if not issubclass(self.HarmonyParser, self.DelegatingParser):
            raise UnsupportedVLLM("HarmonyParser as a subclass of DelegatingParser")
        #: Where vLLM's grammars constrain the envelope of every call, strict or not; None: this vLLM has no such level.
        self.call_level: Any = getattr(
            _optional("vllm.tool_parsers.tool_strict_level", "ToolStrictLevel"), "FUNCTION", None
        )
        self.StructuredOutputsParams: Any = _optional("vllm.sampling_params", "StructuredOutputsParams")
        #: From such parameters to a format of xgrammar's; None: there is none.
        self.format_of: Any = getattr(self._delegating, "structured_outputs_to_format", None)
        #: Whether a reply can be held to a grammar of ours: the parameters can be looked at before vLLM refuses them,
        #: and a grammar can end with any of the model's end tokens.
        verify, compile_grammar = (
            getattr(_optional(module, owner), method, None) for module, owner, method in GRAMMARS
        )
        self.holds: bool = (
            self.StructuredOutputsParams is not None
            and verify is not None
            and compile_grammar is not None
            and "stop_token_ids" in inspect.signature(compile_grammar).parameters
        )
        #: Where reasoning tokens stand in a chat reply's usage.
        self.CompletionTokenUsageInfo: Any = next(
            filter(None, (_optional(module, "CompletionTokenUsageInfo") for module in _USAGE_MODULES)), None
        )
        #: Tokens of a reply by what they were for; None: this vLLM does not count them.
        self.TokenPhaseCounts: Any = _optional("vllm.entrypoints.generate.base.protocol", "TokenPhaseCounts")
        #: An error that vLLM answers with HTTP 400.
        self.ValidationError: type[Exception] = _optional("vllm.exceptions", "VLLMValidationError") or ValueError

    def rebind(self, harmony: type, delegating: type, requests: type) -> None:
        """Put our parsers where ``ParserManager`` looks: ``harmony`` for gpt-oss, ``delegating`` for other models; and
        ``requests`` where the route of ``/v1/responses`` finds the class that it reads requests by."""
        self._harmony.HarmonyParser = harmony  # type: ignore[attr-defined]
        self._delegating.DelegatingParser = delegating  # type: ignore[attr-defined]
        self._responses.ResponsesRequest = requests  # type: ignore[attr-defined]

    def request_class(self) -> Any:
        """What requests of ``/v1/responses`` are read by."""
        return _attribute(self._responses, "ResponsesRequest")

    @staticmethod
    def start_date() -> str | None:
        """The date that vLLM's prompts are pinned to."""
        return getattr(_module("vllm.envs"), "VLLM_SYSTEM_START_DATE", None)

    def _of(self, name: str) -> Any:
        return _attribute(self._harmony, name)

    @staticmethod
    def _takes(function: Any, *names: str) -> None:
        parameters = inspect.signature(function).parameters
        for name in names:
            if name not in parameters:
                raise UnsupportedVLLM(f"parameter {name} of {function.__module__}.{function.__qualname__}")


@functools.lru_cache(maxsize=1)
def load() -> Seams:
    """The seams of the running vLLM.

    Raises:
        UnsupportedVLLM: names the one that is missing.
    """
    return Seams()


_USAGE_MODULES = ("vllm.entrypoints.serve.engine.protocol", "vllm.entrypoints.openai.engine.protocol")
_CHAT = "vllm.entrypoints.openai.chat_completion"
_MESSAGES = "vllm.entrypoints.anthropic.serving"
_RESPONSES = "vllm.entrypoints.openai.responses"

#: What `serving` wraps: module, class, method.
SERVING = (
    (f"{_CHAT}.serving", "OpenAIServingChat", "chat_completion_full_generator"),
    (f"{_CHAT}.serving", "OpenAIServingChat", "chat_completion_stream_generator"),
    (f"{_CHAT}.serving", "OpenAIServingChat", "_create_chat_logprobs"),
    (f"{_CHAT}.batch_serving", "OpenAIServingChatBatch", "chat_completion_full_generator_batch"),
    (_MESSAGES, "AnthropicServingMessages", "messages_full_converter"),
    (_MESSAGES, "AnthropicServingMessages", "message_stream_converter"),
    (f"{_RESPONSES}.context", "HarmonyContext", "append_output"),
    (f"{_RESPONSES}.serving", "OpenAIServingResponses", "responses_full_generator"),
    ("vllm.v1.engine.detokenizer", "IncrementalDetokenizer", "from_new_request"),
)
#: Where a grammar is refused, and where it is compiled: what `constraints` wraps.
GRAMMARS = (
    ("vllm.sampling_params", "SamplingParams", "verify"),
    ("vllm.v1.structured_output.backend_xgrammar", "XgrammarBackend", "compile_grammar"),
)
#: The same as `SERVING`, of endpoints that are served only where a flag asks for them, and of what some releases lack.
SERVING_WHERE_THERE = (
    ("vllm.entrypoints.scale_out.derender.serving", "ServingDerender", "derender_chat_response"),
    ("vllm.renderers.online_renderer", "OnlineRenderer", "_make_request_with_harmony"),
    ("vllm.v1.engine.output_processor", "RequestState", "make_request_output"),
    (f"{_RESPONSES}.serving", "OpenAIServingResponses", "create_responses"),
    (f"{_RESPONSES}.serving", "OpenAIServingResponses", "responses_stream_generator"),
    (f"{_RESPONSES}.serving", "OpenAIServingResponses", "retrieve_responses"),
    *GRAMMARS,
)


def check_serving() -> None:
    """Look for what `serving` wraps, at the start of a server. Imports vLLM's serving layer.

    Raises:
        UnsupportedVLLM: names the one that is missing.
    """
    for module, owner, method in SERVING:
        _attribute(_attribute(_module(module), owner), method)


def loaded(module: str, owner: str) -> Any:
    """A class of vLLM's serving layer, if this process has loaded it; else None."""
    return getattr(sys.modules.get(module), owner, None)


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UnsupportedVLLM(f"{name} ({error})") from None


def _attribute(owner: Any, name: str) -> Any:
    try:
        return getattr(owner, name)
    except AttributeError:
        module = "" if inspect.ismodule(owner) else f"{owner.__module__}."
        raise UnsupportedVLLM(f"{module}{owner.__name__}.{name}") from None


def _optional(module: str, name: str) -> Any:
    try:
        return getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None
