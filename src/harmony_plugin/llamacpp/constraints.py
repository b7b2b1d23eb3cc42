"""What the model may write next: well-formed headers, and bodies held to a JSON schema.

A header is one of few token sequences, so the headers are a tree of ids, and a step down it costs nothing. Bodies that
follow a schema are held by llguidance on the model's own vocabulary. Other bodies are free, except for markers that
may not stand there. The work per token never depends on what came before.

Knows token ids and schemas; knows nothing of the engine's loop, and splits nothing: that is the core's.
"""

from __future__ import annotations

import functools
import json
import logging
import math
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import Options
from ..core import BUILTIN_RECIPIENTS, SPECIAL_IDS, RequestError, spellings
from ..prompts import referenced
from .engine import Only, Without

if TYPE_CHECKING:
    from ..api.request import ChatRequest, FunctionTool
    from .engine import Engine

__all__ = ["Allowed", "Constraint", "Grammars"]

COMPILED_SCHEMAS = 64
"""How many schemas a `Grammars` keeps compiled."""

FIRST_SPECIAL = SPECIAL_IDS.start

# Where a schema allows more ids than these, those that it forbids are listed instead.
MOST_LISTED = 50_000

# How enforced JSON is written, whatever the schema says in `x-guidance`. White space between its parts is bounded:
# models that are lost write it without end. Of several `oneOf` branches any may match: counting is beyond a grammar.
# `lenient`: a keyword or format that llguidance does not know is no error, as in JSON Schema itself; it names them.
STYLE: Any = {
    "lenient": True,
    "coerce_one_of": True,
    "whitespace_flexible": False,
    "item_separator": ", ?",
    "key_separator": ": ?",
}

# Bounds on what a schema may ask of llguidance, which takes some numbers at their word: seconds and gigabytes.
MOST_SCHEMA_TEXT = 1_000_000
MOST_COUNTED = 20_000
MOST_MULTIPLE = 10_000
COUNTS = ("minItems", "maxItems", "minProperties", "maxProperties")
# Patterns that one text must match all: whether they leave any is found out in time exponential in their number.
MOST_JOINED_PATTERNS = 12

Encode = Callable[[str], Sequence[int]]

log = logging.getLogger("harmony_plugin.llamacpp")


class Compiled(NamedTuple):
    """A schema's matcher (to be copied for use), and what of the schema it does not hold."""

    matcher: Any
    unenforced: tuple[str, ...]


@dataclass(frozen=True)
class AllowedBody:
    """What may stand behind a header.

    Attributes:
        ends: the markers that may end it.
        matcher: holds the text to a schema (to be copied for use); None: free text.
        call: whether it is a tool call's.
    """

    ends: tuple[int, ...]
    matcher: Any = None
    call: bool = False


@dataclass
class Node:
    """A place in a header: the ids that may follow, and where they lead."""

    next: dict[int, Node | AllowedBody] = field(default_factory=dict)

    def add(self, path: Sequence[int], end: Node | AllowedBody) -> None:
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
        self._compiled: OrderedDict[str, Compiled] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def vocabulary_size(self) -> int:
        """How many ids the model has."""
        return self._engine.vocabulary_size

    def prepare(self) -> None:
        """Make the tokenizer now.

        Raises:
            ImportError: without llguidance.
        """
        with self._lock:
            if self._tokenizer is None:
                from llguidance.llamacpp import lltokenizer_from_vocab

                with warnings.catch_warnings():
                    # It reads each token's attributes by a name that llama-cpp-python calls deprecated, each time.
                    warnings.simplefilter("ignore", DeprecationWarning)
                    self._tokenizer = lltokenizer_from_vocab(self._engine.vocabulary, eos_token=self._engine.eos)

    def compile(self, schema: Mapping[str, Any], where: str) -> Compiled:
        """A matcher for texts that follow `schema`.

        Keywords, formats and patterns that cannot be enforced are left out of it, and named in `unenforced`.

        Args:
            where: the request's field that the schema came from.

        Raises:
            RequestError: the schema is broken, or past what may be asked; says why.
        """
        _refuse_bombs(schema, where)
        key = json.dumps(schema)
        with self._lock:
            if key in self._compiled:
                self._compiled.move_to_end(key)
                return self._compiled[key]
        try:
            self.prepare()
        except ImportError as error:
            raise RequestError(
                f"{where} asks for constrained output, which needs llguidance on the server: "
                "pip install 'harmony-plugin[llamacpp]'",
                where,
                "unsupported",
            ) from error
        compiled = self._try(key)
        left_out: list[str] = []
        if isinstance(compiled, str):
            relaxed = self._relaxed(schema, left_out)
            if left_out:
                compiled = self._try(json.dumps(relaxed))
        if isinstance(compiled, Compiled):
            compiled = compiled._replace(unenforced=(*left_out, *compiled.unenforced))
        if isinstance(compiled, str):
            raise RequestError(f"{where} cannot be enforced: {_reason(compiled)}", where, "invalid_json_schema")
        with self._lock:
            self._compiled[key] = compiled
            while len(self._compiled) > COMPILED_SCHEMAS:
                self._compiled.popitem(last=False)
        return compiled

    def _try(self, schema: str) -> Compiled | str:
        """The schema compiled, or what is wrong with it."""
        from llguidance import LLMatcher

        try:
            grammar = LLMatcher.grammar_from_json_schema(schema, overrides=STYLE)
            matcher = LLMatcher(self._tokenizer, grammar, log_level=0)
            if matcher.is_error():
                return str(matcher.get_error())
            first = matcher.deep_copy()
            first.compute_bitmask()
            if first.is_error():
                return "no JSON value satisfies it"
            warnings = LLMatcher.validate_grammar_with_warnings(grammar, self._tokenizer)[1]
        except Exception as error:
            return str(error)
        return Compiled(matcher, tuple(w for w in warnings if not w.startswith("oneOf")))

    def _relaxed(self, value: Any, left_out: list[str]) -> Any:
        """A schema without what llguidance refuses although it is sound: patterns that look around or back, and
        references to other documents. What is left out is added to `left_out`."""
        if isinstance(value, list | tuple):
            return [self._relaxed(item, left_out) for item in value]
        if not isinstance(value, Mapping):
            return value
        kept: dict[str, Any] = {}
        for name, inner in value.items():
            if name == "pattern" and isinstance(inner, str) and self._beyond(inner):
                left_out.append(f"pattern: {inner}")
            elif name == "$ref" and isinstance(inner, str) and not inner.startswith("#"):
                left_out.append(f"$ref: {inner}")
            elif name in ("enum", "const", "default", "examples"):
                kept[name] = inner
            elif name == "patternProperties" and isinstance(inner, Mapping) and any(map(self._beyond, inner)):
                left_out.append(f"patternProperties: {', '.join(inner)}")
                kept["additionalProperties"] = True
            elif name not in kept:
                kept[name] = self._relaxed(inner, left_out)
        return kept

    def _beyond(self, pattern: str) -> bool:
        """Whether a pattern is sound, as far as can be told, and yet more than an automaton can follow."""
        problem = self._try(json.dumps({"type": "string", "pattern": pattern}))
        return isinstance(problem, str) and "supported" in problem


class Allowed:
    """The trees of all headers that a request allows, from behind `<|start|>assistant` on. Shared by its choices.

    Attributes:
        root: where a reply begins.
        answer: where it goes on when no more reasoning may come.
        unenforced: what of the request's schemas is not held, by the field that it stands in.

    Raises:
        RequestError: a schema cannot be enforced.
    """

    def __init__(
        self, request: ChatRequest, grammars: Grammars, markers: Mapping[str, int], encode: Encode, options: Options
    ) -> None:
        self.markers = markers
        self.encode = encode
        self.vocabulary_size = grammars.vocabulary_size
        self.root, self.answer = Node(), Node()
        self.unenforced: list[str] = []
        self._grammars = grammars
        end, call, over = (markers[kind] for kind in ("end", "call", "return"))
        required, shaped = request.tool_choice == "required", request.schema is not None
        # Reasoning ends in another message, never in the end of the reply: there is always an answer.
        for channel in ("analysis", *options.channels):
            self._message(channel, AllowedBody((end,)), trees=(self.root,))
        if request.schema is not None and not required:
            self._message("final", AllowedBody((over,), self._matcher(request.schema, "response_format")))
        elif not required:
            closing = tuple(token for token in (over, end, markers["endoftext"]) if token >= 0)
            self._message("final", AllowedBody(closing))
        # A preamble is shown beside the answer, which would no longer be JSON.
        if not (shaped and options.commentary == "content"):
            preamble = AllowedBody((end,) if required else (end, over))
            final_next = required or not request.callable_names
            self._message("commentary", preamble, trees=(self.root,) if final_next else (self.root, self.answer))
        for i, tool in enumerate(request.tools):
            if tool.name not in request.callable_names:
                continue
            matcher = self._arguments(tool, f"tools[{i}].function.parameters", required)
            body = AllowedBody((call,) if matcher else (call, end, over), matcher, call=True)
            self._message("commentary", body, recipient=f"functions.{tool.name}")
        if not required:
            for recipient in BUILTIN_RECIPIENTS if options.builtin_tools == "tool_calls" else request.builtin:
                body = AllowedBody((call, end), call=True)
                self._message("analysis", body, recipient=recipient, kind="code", trees=(self.root,))

    @staticmethod
    def needed(request: ChatRequest) -> bool:
        """Whether the request asks for anything that must be enforced, headers included."""
        return request.headers == "constrain" or Allowed.wanted(request)

    @staticmethod
    def wanted(request: ChatRequest) -> bool:
        """Whether the client asks for it."""
        strict = any(tool.strict for tool in request.tools)
        return strict or request.schema is not None or request.tool_choice == "required"

    def _arguments(self, tool: FunctionTool, where: str, required: bool) -> Any:
        if tool.strict:
            return self._matcher(tool.parameters, where)
        if not required:
            return None
        # Nobody asked for the schema to be enforced; a call there must be, and arguments are an object.
        try:
            return self._matcher({"type": "object", **tool.parameters}, where)
        except RequestError:
            return self._matcher({"type": "object"}, where)

    def _matcher(self, schema: Mapping[str, Any], where: str) -> Any:
        compiled = self._grammars.compile(schema, where)
        self.unenforced += (f"{where}: {what}" for what in compiled.unenforced)
        return compiled.matcher

    def _message(
        self,
        channel: str,
        body: AllowedBody,
        *,
        recipient: str | None = None,
        kind: str = "json",
        trees: tuple[Node, ...] | None = None,
    ) -> None:
        """Allow a message, in each way that models write its header; the most usual comes first."""
        typed = recipient is not None or channel == "final"
        headers = spellings(channel, recipient, kind if typed else None)
        for tree in (self.root, self.answer) if trees is None else trees:
            # What is put in for the model is written in the usual way, so one header is enough there.
            for header in headers[:1] if tree is self.answer else headers:
                path = [i for marker, text in header for i in (self.markers[marker], *self.encode(text))]
                tree.add([*path[1:], self.markers["message"]], body)  # behind the <|start|>assistant


class Constraint:
    """What one reply may write next: asked by `mask`, told of every id by `accept`.

    Processors that run later have the last word. Should one bring up an id that is not allowed, the constraint
    steps aside for the rest of the reply.

    Attributes:
        failed: a schema grew beyond llguidance's bounds while it was enforced: the reply must end here.
    """

    def __init__(self, allowed: Allowed) -> None:
        self.failed = False
        self._standing: Without | None = None  # what is forbidden in the free text under way
        self._markers = allowed.markers
        self._root, self._answer = allowed.root, allowed.answer
        self._opening = [allowed.markers["start"], *allowed.encode("assistant")]
        self._between = Node()
        self._after_call = Node({allowed.markers["return"]: Node()})
        self._continue_at(self._root)
        self._state: Node | AllowedBody | None = self._root
        self._size = allowed.vocabulary_size
        self._matcher: Any = None
        self._bits: Any = None
        self._listed: Only | Without
        self._listed_bits: tuple[bytes, list[int]] | None = None

    def mask(self) -> Only | Without | None:
        """What may come next; None: anything."""
        state = self._state
        if isinstance(state, Node):
            return Only(sorted(state.next)) if state.next else None
        if state is None or self._matcher is None:
            return self._standing
        return self._held(sorted(state.ends))

    def _held(self, ends: list[int]) -> Only | Without:
        """What the schema allows next, and the markers where the text may end."""
        import llguidance.numpy as masks

        matcher = self._matcher
        if matcher.is_stopped():
            return Only(ends)
        if self._bits is None:
            self._bits = masks.allocate_token_bitmask(1, self._size)
        masks.fill_next_token_bitmask(matcher, self._bits, 0)
        if matcher.is_error():
            log.warning("a schema cannot be enforced any further: %s", _reason(matcher.get_error()))
            self.failed = True
            return Only(ends)
        closing = ends if matcher.is_accepting() else []
        # Inside a string it is the same for one token after another.
        bits = self._bits.tobytes(), closing
        if bits != self._listed_bits:
            self._listed, self._listed_bits = self._list(ends, closing), bits
        return self._listed

    def _list(self, ends: list[int], closing: list[int]) -> Only | Without:
        """The ids that the bits allow and `closing`, or else those forbidden, where they are fewer."""
        import numpy as np

        text = np.unpackbits(self._bits[0].view(np.uint8), bitorder="little")[:FIRST_SPECIAL].view(bool)
        count = np.count_nonzero(text)
        if count > MOST_LISTED:
            return Without(np.concatenate((np.flatnonzero(~text), _markers_but(tuple(closing), self._size).ids)))
        if not count and not closing:
            log.warning("a schema cannot be enforced any further: no token of the model goes on from here")
            self.failed = True
            return Only(ends)
        return Only(np.concatenate((np.flatnonzero(text), np.array(closing, dtype=np.intp))))

    def accept(self, token: int) -> None:
        """Go on behind `token`, which was sampled or put in."""
        state = self._state
        if isinstance(state, Node):
            self._go(state.next.get(token))
        elif state is not None:
            if token in state.ends:
                self._go(self._after_call if state.call else self._between)
            elif token >= FIRST_SPECIAL or (self._matcher is not None and not self._matcher.consume_token(token)):
                self._go(None)

    def answer(self) -> list[int]:
        """Allow no more reasoning. Gives the ids to put in: the end of the reasoning under way, and as much of the next
        header as is certain."""
        put: list[int] = []
        if self._state is self._root:
            self._state = self._answer
        else:
            put = [self._markers["end"], *self._opening]
        self._continue_at(self._answer)
        step: Node | AllowedBody = self._answer
        while isinstance(step, Node) and len(step.next) == 1:
            ((token, step),) = step.next.items()
            put.append(token)
        return put

    def _go(self, state: Node | AllowedBody | None) -> None:
        self._state = state
        self._matcher = self._standing = None
        if isinstance(state, AllowedBody):
            if state.matcher is None:
                self._standing = _markers_but(state.ends, self._size)
            else:
                self._matcher = state.matcher.deep_copy()

    def _continue_at(self, node: Node) -> None:
        """Let the next message begin at `node`."""
        for place in (self._between, self._after_call):
            place.next.pop(self._opening[0], None)
            place.add(self._opening, node)


@functools.lru_cache(maxsize=64)
def _markers_but(ends: tuple[int, ...], vocabulary_size: int) -> Without:
    """All special ids but `ends` are forbidden; always the same object for the same."""
    import numpy as np

    return Without(np.setdiff1d(np.arange(FIRST_SPECIAL, vocabulary_size), ends))


def _refuse_bombs(schema: Mapping[str, Any], where: str) -> None:
    """Refuse what would take llguidance too long or too much memory.

    Raises:
        RequestError: says which keyword.
    """
    counted: float = 0
    multiples, joined = {1}, False
    todo: list[Any] = [schema]
    while todo:
        value = todo.pop()
        if isinstance(value, list | tuple):
            todo += value
        elif isinstance(value, Mapping):
            todo += value.values()
            joined = joined or "allOf" in value or "$ref" in value
            counted += sum(n for n in map(value.get, COUNTS) if isinstance(n, int | float))
            multiple = value.get("multipleOf")
            if isinstance(multiple, int | float) and multiple > 0:
                # In units of its last digit: a grammar has a state for each remainder, together where schemas join.
                multiples.add(int("".join(map(str, Decimal(repr(multiple)).normalize().as_tuple().digits))))
    for keyword, size, most in (
        ("the sum of its minItems and maxItems", counted, MOST_COUNTED),
        ("multipleOf", math.lcm(*multiples) if joined else max(multiples), MOST_MULTIPLE),
        ("the number of patterns joined by allOf or $ref", _joined(schema, schema, {}), MOST_JOINED_PATTERNS),
        ("its text", len(json.dumps(schema)), MOST_SCHEMA_TEXT),
    ):
        if size > most:
            raise RequestError(
                f"{where} cannot be enforced: {keyword} is too large ({size} > {most})", where, "invalid_json_schema"
            )


def _joined(value: Any, root: Mapping[str, Any], known: dict[str, int]) -> int:
    """At most how many patterns and formats one text has to match.

    Args:
        known: what is known of references, by the reference; one to something around itself adds nothing.
    """
    if isinstance(value, list | tuple):
        return max((_joined(item, root, known) for item in value), default=0)
    if not isinstance(value, Mapping):
        return 0
    count = sum(isinstance(value.get(name), str) for name in ("pattern", "format"))  # not a property of that name
    reference, branches = value.get("$ref"), value.get("allOf")
    if isinstance(reference, str):
        if reference not in known:
            known[reference] = 0
            known[reference] = _joined(referenced(root, reference), root, known)
        count += known[reference]
    if isinstance(branches, list | tuple):
        count += sum(_joined(branch, root, known) for branch in branches)
    others = (item for key, item in value.items() if key not in ("allOf", "$defs", "definitions"))
    return count + max((_joined(item, root, known) for item in others), default=0)


def _reason(problem: str) -> str:
    """The line of llguidance's report that says what is wrong."""
    lines = [line for line in problem.splitlines() if line.strip()]
    return lines[0].strip() if lines else "for a reason that llguidance does not tell"
