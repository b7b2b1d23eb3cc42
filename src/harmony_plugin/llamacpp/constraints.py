"""What the model may write next: well-formed headers, and bodies held to a JSON schema.

A header is one of few token sequences, so the headers are a tree of ids, and a step down it costs nothing. Bodies that
follow a schema are held by llguidance on the model's own vocabulary. Other bodies are free, except for markers that
may not stand there. The work per token never depends on what came before.

Knows token ids and schemas; knows nothing of the engine's loop, and splits nothing: that is the core's.
"""

from __future__ import annotations

import json
import logging
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .. import Options
from ..errors import RequestError

if TYPE_CHECKING:
    from ._compat import Engine
    from .request import ChatRequest

__all__ = ["Constraint", "Grammars"]

COMPILED_SCHEMAS = 64
"""How many schemas a `Grammars` keeps compiled."""

BUILTIN_RECIPIENTS = {
    "python": ("python",),
    "browser": ("browser.search", "browser.open", "browser.find"),
}

Encode = Callable[[str], Sequence[int]]

log = logging.getLogger("harmony_plugin.llamacpp")


@dataclass(frozen=True)
class Body:
    """What may stand behind a header.

    :ivar ends: the markers that may end it.
    :ivar matcher: holds the text to a schema (to be copied for use); None: free text.
    :ivar call: whether it is a tool call's.
    """

    ends: tuple[int, ...]
    matcher: Any = None
    call: bool = False


@dataclass
class Node:
    """A place in a header: the ids that may follow, and where they lead."""

    next: dict[int, Node | Body] = field(default_factory=dict)

    def add(self, path: Sequence[int], end: Node | Body) -> None:
        node = self
        for token in path[:-1]:
            step = node.next.setdefault(token, Node())
            assert isinstance(step, Node)
            node = step
        node.next.setdefault(path[-1], end)


class Grammars:
    """One model's tokenizer as llguidance wants it, made at first use (a second or two), and compiled schemas."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._tokenizer: Any = None
        self._compiled: OrderedDict[str, Any] = OrderedDict()
        self._lock = threading.Lock()

    def prepare(self) -> None:
        """Make the tokenizer now.

        :raises ImportError: without llguidance.
        """
        with self._lock:
            if self._tokenizer is None:
                from llguidance.llamacpp import lltokenizer_from_vocab

                with warnings.catch_warnings():
                    # It reads each token's attributes by a name that llama-cpp-python calls deprecated, each time.
                    warnings.simplefilter("ignore", DeprecationWarning)
                    self._tokenizer = lltokenizer_from_vocab(self._engine.vocabulary, eos_token=self._engine.eos)

    def compile(self, schema: Mapping[str, Any], where: str) -> Any:
        """A matcher for texts that follow `schema`; copy it for use.

        :param where: the request's field that the schema came from.
        :raises RequestError: the schema cannot be enforced; says why.
        """
        key = json.dumps(schema, sort_keys=False, ensure_ascii=True)
        with self._lock:
            if key in self._compiled:
                self._compiled.move_to_end(key)
                return self._compiled[key]
        try:
            self.prepare()
            from llguidance import LLMatcher
        except ImportError as error:
            raise RequestError(
                f"{where} asks for constrained output, which needs llguidance on the server: "
                "pip install 'harmony-plugin[llamacpp]'",
                where,
                "unsupported",
            ) from error
        try:
            # Defaults stand behind the schema's own `x-guidance`, which must not reach in from a client: overrides do.
            grammar = LLMatcher.grammar_from_json_schema(key, overrides={"lenient": False})
            matcher = LLMatcher(self._tokenizer, grammar, log_level=0)
            problem = matcher.get_error() if matcher.is_error() else ""
        except Exception as error:
            problem = str(error)
        if problem:
            raise RequestError(f"{where} cannot be enforced: {_first_line(problem)}", where, "invalid_json_schema")
        with self._lock:
            self._compiled[key] = matcher
            while len(self._compiled) > COMPILED_SCHEMAS:
                self._compiled.popitem(last=False)
        return matcher


class Constraint:
    """A logits processor for one reply, told of every id by `accept`.

    Another processor that runs later has the last word. Should it bring up an id that is not allowed, the constraint
    steps aside for the rest of the reply.
    """

    def __init__(
        self, request: ChatRequest, grammars: Grammars, markers: Mapping[str, int], encode: Encode, options: Options
    ) -> None:
        self.failed = False
        """Whether a schema grew beyond the engine's bounds while it was enforced: the reply must end here."""
        self._markers = markers
        self._encode = encode
        self._first_special = min(markers[kind] for kind in markers if markers[kind] >= 0)
        self._root, self._answer = Node(), Node()
        self._matcher: Any = None
        self._mask: Any = None
        self._allow(request, grammars, options)
        assistant = encode("assistant")
        self._between = Node()
        self._after_call = Node({markers["return"]: Node()})
        for node in (self._between, self._after_call):
            node.add([markers["start"], *assistant], self._root)
        self._state: Node | Body | None = self._root

    @classmethod
    def needed(cls, request: ChatRequest) -> bool:
        return (
            request.headers == "constrain"
            or request.schema is not None
            or request.tool_choice == "required"
            or any(tool.strict for tool in request.tools)
        )

    # Building the trees.

    def _allow(self, request: ChatRequest, grammars: Grammars, options: Options) -> None:
        end, call, ends = (self._markers[kind] for kind in ("end", "call", "return"))
        required, shaped = request.tool_choice == "required", request.schema is not None
        closing = (ends, end, self._markers["endoftext"]) if self._markers["endoftext"] >= 0 else (ends, end)
        reasoning = Body((end,))
        self._message("analysis", reasoning, trees=(self._root,))
        for channel in options.channels:
            self._message(channel, Body((end,)), trees=(self._root,))
        if not required:
            if shaped:
                assert request.schema is not None
                final = Body((ends,), grammars.compile(request.schema, "response_format"))
            else:
                final = Body(closing)
            self._message("final", final)
        preamble_is_content = options.commentary == "content"
        if not (shaped and preamble_is_content):
            # Nothing but a call may follow where one is required, so a preamble cannot end the reply there.
            trees = (self._root,) if required or not request.callable_names else (self._root, self._answer)
            self._message("commentary", Body((end,) if required else (end, ends)), trees=trees)
        for i, tool in enumerate(request.tools):
            if tool.name not in request.callable_names:
                continue
            where, matcher = f"tools[{i}].function.parameters", None
            if tool.strict:
                matcher = grammars.compile(tool.parameters, where)
            elif required:
                try:
                    matcher = grammars.compile(tool.parameters, where)
                except RequestError:
                    matcher = grammars.compile({"type": "object"}, where)
            body = Body((call,) if matcher else (call, end, ends), matcher, call=True)
            self._message("commentary", body, recipient=f"functions.{tool.name}")
        if options.builtin_tools == "tool_calls" and not required:
            for recipients in BUILTIN_RECIPIENTS.values():
                for recipient in recipients:
                    body = Body((call, end), call=True)
                    self._message("analysis", body, recipient=recipient, kind="code", trees=(self._root,))

    def _message(
        self,
        channel: str,
        body: Body,
        *,
        recipient: str | None = None,
        kind: str = "json",
        trees: tuple[Node, ...] | None = None,
    ) -> None:
        """Allow a message, in each way that models write its header; the most usual comes first."""
        begin, constrain, message = (self._markers[k] for k in ("channel", "constrain", "message"))
        plain: list[list[int | str]] = [[begin, channel]]
        if recipient is not None:
            plain = [[begin, f"{channel} to={recipient}"], [f" to={recipient}", begin, channel]]
        typed: list[list[int | str]] = []
        for head in plain:
            *front, last = head
            typed += [[*front, f"{last} ", constrain, kind], [*head, constrain, kind], [*front, f"{last} {kind}"]]
        if recipient is not None:
            headers = [*typed, *plain]
        elif body.matcher is not None or channel == "final":
            headers = [*plain, *typed]
        else:
            headers = plain
        for tree in (self._root, self._answer) if trees is None else trees:
            # What is put in for the model is written in the usual way, so one header is enough there.
            for header in headers[:1] if tree is self._answer else headers:
                path = [i for part in header for i in ([part] if isinstance(part, int) else self._encode(part))]
                tree.add([*path, message], body)

    # Following the reply.

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        state = self._state
        if isinstance(state, Node):
            if state.next:
                allowed = list(state.next)
                kept = scores[allowed]
                scores[:] = float("-inf")
                scores[allowed] = kept
        elif state is not None:
            ends = list(state.ends)
            kept = scores[ends]
            if self._matcher is None:
                scores[self._first_special :] = float("-inf")
                scores[ends] = kept
            else:
                may_end = self._hold(scores)
                scores[self._first_special :] = float("-inf")
                if may_end:
                    scores[ends] = kept
        return scores

    def _hold(self, scores: Any) -> bool:
        """Forbid what the schema does not allow next; tell whether the text may end here."""
        import llguidance.numpy as masks
        import numpy as np

        matcher = self._matcher
        if matcher.is_stopped():
            scores[:] = float("-inf")
            return True
        if self._mask is None:
            self._mask = masks.allocate_token_bitmask(1, len(scores))
        masks.fill_next_token_bitmask(matcher, self._mask, 0)
        if matcher.is_error():
            log.warning("a schema cannot be enforced any further: %s", _first_line(matcher.get_error()))
            self.failed = True
            return True
        forbidden = np.unpackbits((~self._mask[0]).view(np.uint8), bitorder="little")[: len(scores)].view(bool)
        np.copyto(scores, float("-inf"), where=forbidden)
        return bool(matcher.is_accepting())

    def accept(self, token: int) -> None:
        """Go on behind `token`, which was sampled or put in."""
        state = self._state
        if isinstance(state, Node):
            self._go(state.next.get(token))
        elif state is not None:
            if token in state.ends:
                self._matcher = None
                self._state = self._after_call if state.call else self._between
            elif token >= self._first_special or (
                self._matcher is not None and not self.failed and not self._matcher.consume_token(token)
            ):
                self._go(None)

    def _go(self, state: Node | Body | None) -> None:
        self._state = state
        self._matcher = state.matcher.deep_copy() if isinstance(state, Body) and state.matcher is not None else None

    def answer(self) -> list[int]:
        """Allow no more reasoning, and give the ids to put in: the end of the reasoning under way, and as much of the
        next header as is certain."""
        put: list[int] = []
        if isinstance(self._state, Body):
            put = [self._markers["end"], self._markers["start"], *self._encode("assistant")]
        for node in (self._between, self._after_call):
            del node.next[self._markers["start"]]
            node.add([self._markers["start"], *self._encode("assistant")], self._answer)
        node = self._answer
        while len(node.next) == 1:
            token, step = next(iter(node.next.items()))
            put.append(token)
            if isinstance(step, Body):
                break
            node = step
        if self._state is self._root:
            self._state = self._answer
        return put


def _first_line(problem: str) -> str:
    return problem.strip().splitlines()[0] if problem.strip() else "unknown reason"
