"""The checks: what must hold of an API that serves gpt-oss, and what it means for a user where it does not.

A check is a function that returns what it saw, and raises `Fails`, `Missed` or `Unclear`. It is written once, for every
API. Knows no API's words and no server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from .api import Api
from .asks import Ask, Json, Reply, Tool, Turn, Usage, schema_problem
from .endpoint import APIS, Endpoint
from .leaks import leaks
from .results import Cut, Fails, Missed, Unclear

__all__ = ["CHECKS", "Asker", "Check", "check"]

TINY = 16  # tokens; the least that OpenAI's Responses API takes

WEATHER = Tool(
    "get_weather",
    "Current weather of a city.",
    {
        "type": "object",
        "properties": {"city": {"type": "string"}, "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
)
TIME = Tool(
    "get_time",
    "Current time in a time zone.",
    {
        "type": "object",
        "properties": {"zone": {"type": "string", "description": "IANA name, such as Europe/Paris"}},
        "required": ["zone"],
        "additionalProperties": False,
    },
)
BOOKING = Tool(
    "book_table",
    "Book a table at a restaurant.",
    {
        "type": "object",
        "properties": {
            "restaurant": {"type": "string"},
            "guests": {"type": "array", "items": {"type": "string"}, "minItems": 1},
            "seating": {
                "type": "object",
                "properties": {"place": {"enum": ["inside", "outside"]}},
                "required": ["place"],
            },
            "hour": {"type": "integer", "minimum": 0, "maximum": 23},
        },
        "required": ["restaurant", "guests", "seating", "hour"],
        "additionalProperties": False,
    },
)
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer"},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
UNICODE = "Zürich 東京 Ωμέγα 🦙 naïve “quoted”"
RESULT = '{"temperature": 37, "unit": "celsius"}'

PLAIN = Ask("How many legs do three spiders have? Answer in one sentence.")
CALLING = Ask("What is the weather in Paris? Use the tool.", (WEATHER,))


@dataclass
class Asker:
    """What a check asks through: one API of an endpoint, in its first pass or a later one."""

    endpoint: Endpoint
    api: Api
    attempt: int = 0
    more: Json = field(default_factory=dict)
    passes: int = 1

    def whole(self, ask: Ask) -> Reply:
        return self._complete(self.endpoint.whole(self.api, replace(ask, attempt=self.attempt)))

    def streamed(self, ask: Ask) -> Reply:
        return self._complete(self.endpoint.streamed(self.api, replace(ask, attempt=self.attempt)))

    def _complete(self, reply: Reply) -> Reply:
        """The reply; raises where it was cut and should not have been: half a reply shows nothing."""
        limit, used = self.endpoint.max_tokens, reply.usage
        cut = "length" in [reply.finish, *(reason for _, reason in reply.choices.values())]
        if cut and reply.ask.max_tokens is None and (used is None or used.completion >= limit):
            raise Cut(f"{reply.how}: cut at {limit} tokens, see --max-tokens: {_brief(reply)}")
        return reply

    def both(self, ask: Ask) -> Iterator[Reply]:
        """The reply whole, then streamed."""
        yield self.whole(ask)
        yield self.streamed(ask)

    def seen(self) -> list[Reply]:
        """All replies of the run so far; where there are none, those to a question and to a call."""
        seen = self.endpoint.replies[self.api.name]
        if not seen:
            for ask in (PLAIN, CALLING):
                list(self.both(ask))
        return list(seen)

    def most(self, problems: list[str]) -> str:
        """The first of `problems`; JSON tells all that differ."""
        different = list(dict.fromkeys(map(self.endpoint.redacted, problems)))
        self.more["problems"] = different
        return different[0] + (f" (and {len(different) - 1} more)" if len(different) > 1 else "")


@dataclass(frozen=True)
class Check:
    """A check.

    Attributes:
        meaning: one line for a user.
        last: it judges all replies of the run, so it comes at the end.
        repeats: it asks again by itself.
    """

    name: str
    meaning: str
    run: Callable[[Asker], str]
    apis: tuple[str, ...]
    last: bool = False
    repeats: bool = False


CHECKS: dict[str, Check] = {}


def check(
    name: str, meaning: str, *, apis: tuple[str, ...] = APIS, last: bool = False, repeats: bool = False
) -> Callable[[Callable[[Asker], str]], Callable[[Asker], str]]:
    """Add a function to `CHECKS`."""

    def add(run: Callable[[Asker], str]) -> Callable[[Asker], str]:
        CHECKS[name] = Check(name, meaning, run, apis, last, repeats)
        return run

    return add


# Replies


@check("finish", "A client is told why a reply ended: stop, tool_calls")
def finish(asker: Asker) -> str:
    for ask, reason in ((PLAIN, "stop"), (CALLING, "tool_calls")):
        for reply in asker.both(ask):
            if reason == "tool_calls" and not reply.calls:
                raise Missed(f"{reply.how}: no call came, but {_brief(reply)}")
            _wants(reply, reason)
    return "stop for an answer, tool_calls for a call"


@check("length", "A reply that is cut by max_tokens says so, and shows no broken header")
def length(asker: Asker) -> str:
    for reply in asker.both(Ask("Write a story of a thousand words about a lighthouse.", max_tokens=TINY)):
        _wants(reply, "length")
        if reply.usage is not None and reply.usage.completion > TINY:
            raise Fails(f"{reply.how}: {reply.usage.completion} tokens where max_tokens is {TINY}")
        if found := leaks(reply):
            raise Fails(f"{reply.how}: {found[0]}")
    return f"length at {TINY} tokens"


@check("streamed", "A stream says what the whole reply says")
def streamed(asker: Asker) -> str:
    _same(asker, Ask("Name the four seasons, separated by commas."))
    return "the same text, reasoning and finish reason"


@check("streamed-calls", "A streamed tool call is the whole reply's")
def streamed_calls(asker: Asker) -> str:
    same = _same(asker, Ask("What is the weather in Rome? Use the tool.", (WEATHER,)))
    if not same.calls:
        raise Missed(f"no call, but {_brief(same)}")
    return "the same calls"


@check("unicode", "Letters outside ASCII arrive whole, in streams too")
def unicode(asker: Asker) -> str:
    missing = []
    for reply in asker.both(Ask(f"Repeat this line exactly, and nothing else: {UNICODE}")):
        if "\ufffd" in reply.content + reply.reasoning:
            raise Fails(f"{reply.how}: U+FFFD in {reply.content!r}")
        missing += [] if UNICODE in reply.content else [f"{reply.how}: the model wrote {reply.content!r}"]
    if missing:
        raise Unclear(missing[0])
    return UNICODE


@check("n", "n=2 gives two choices, streamed too", apis=("chat",))
def several(asker: Asker) -> str:
    for reply in asker.both(Ask("Suggest a name for a cat. Answer with the name alone.", n=2)):
        if sorted(reply.choices) != [0, 1]:
            raise Fails(f"{reply.how}: the choices are {sorted(reply.choices)}, not 0 and 1")
        if any(reason is None or not content for content, reason in reply.choices.values()):
            raise Fails(f"{reply.how}: a choice without content or finish_reason: {reply.choices}")
    return "two choices"


@check("usage", "Tokens are counted, streamed too, and add up")
def usage(asker: Asker) -> str:
    told = []
    for reply in asker.both(PLAIN):
        if reply.usage is None:
            raise Fails(f"{reply.how}: no usage")
        if problem := _usage_problem(reply.usage):
            raise Fails(f"{reply.how}: {problem}")
        told.append(reply.usage)
    if told[0].prompt != told[1].prompt:
        raise Fails(f"the same prompt is {told[0].prompt} tokens whole and {told[1].prompt} streamed")
    return f"{told[0].prompt} in, {told[0].completion} out"


# Messages has no such number.
@check("usage-reasoning", "Tokens of reasoning are told, so that their cost is seen", apis=("chat", "responses"))
def usage_reasoning(asker: Asker) -> str:
    told = None
    for reply in asker.both(PLAIN):
        if reply.usage is None:
            raise Fails(f"{reply.how}: no usage")
        told = reply.usage.reasoning
        if not reply.reasoning:
            raise Unclear(f"{reply.how}: the model did not reason")
        if not told:
            raise Fails(f"{reply.how}: reasoning_tokens is {told}, and there is reasoning")
        if told > reply.usage.completion:
            raise Fails(f"{reply.how}: {told} reasoning tokens of {reply.usage.completion}")
    return f"{told} tokens of reasoning"


# Reasoning


@check("reasoning", "What the model thought is kept apart from what it says, streamed too")
def reasoning(asker: Asker) -> str:
    for reply in asker.both(Ask("What is 17 times 23? Think it through, then answer with the number.")):
        if not reply.content:
            raise Missed(f"{reply.how}: no answer, but {_brief(reply)}")
        if not reply.reasoning:
            raise Missed(f"{reply.how}: no reasoning, content {reply.content!r}")
    return "reasoning beside the answer"


@check("reasoning-names", "Clients find it under either name: reasoning_content and reasoning", apis=("chat",))
def reasoning_names(asker: Asker) -> str:
    for reply in asker.both(PLAIN):
        names = reply.reasoning_names
        if not names:
            raise Missed(f"{reply.how}: no reasoning")
        missing = {"reasoning", "reasoning_content"} - set(names)
        if missing:
            raise Fails(f"{reply.how}: {', '.join(names)} is there, {', '.join(missing)} is not")
        if len(set(names.values())) != 1:
            raise Fails(f"{reply.how}: the two differ: {names}")
    return "both names, the same text"


@check("reasoning-back", "Reasoning that comes back in a tool loop reaches the model, as gpt-oss needs it")
def reasoning_back(asker: Asker) -> str:
    ask = Ask("What is the weather in Oslo? Use the tool.", (WEATHER,))
    called = asker.whole(ask)
    _wants_call(called, WEATHER)
    if not called.reasoning:
        raise Unclear("the model did not reason before its call")
    counts = []
    for kept in (True, False):
        reply = asker.whole(replace(ask, turns=(Turn(called, RESULT, reasoning=kept),)))
        if reply.usage is None:
            raise Unclear("no usage, so nothing shows how long the prompt was")
        counts.append(reply.usage.prompt)
    if counts[0] <= counts[1]:
        raise Fails(f"the prompt has {counts[0]} tokens with reasoning and {counts[1]} without: it is dropped")
    return f"{counts[0] - counts[1]} tokens of the prompt"


# Tools


@check("tool-loop", "A call can be answered: the turn, its reasoning and the result go back, and an answer comes")
def tool_loop(asker: Asker) -> str:
    for ask_first in (asker.whole, asker.streamed):
        ask = Ask("What is the weather in Cairo, in celsius? Use the tool, then tell me the temperature.", (WEATHER,))
        called = ask_first(ask)
        _wants_call(called, WEATHER)
        answer = ask_first(replace(ask, turns=(Turn(called, RESULT),)))
        if "37" not in answer.content:
            raise Missed(f"{answer.how}: the result says 37, the answer is {_brief(answer)}")
    return "37, as the tool said"


@check("tool-choice-auto", "With tool_choice auto the model may call, and may answer")
def tool_choice_auto(asker: Asker) -> str:
    for reply in asker.both(Ask("What is the weather in Lima? Use the tool.", (WEATHER,), "auto")):
        _wants_call(reply, WEATHER)
    for reply in asker.both(Ask("Say hello in one word. You need no tool for that.", (WEATHER,), "auto")):
        if reply.calls or not reply.content:
            raise Missed(f"{reply.how}: no answer, but {_brief(reply)}")
    return "a call, and an answer"


@check("tool-choice-none", "With tool_choice none there is an answer and no call")
def tool_choice_none(asker: Asker) -> str:
    for reply in asker.both(Ask("What is the weather in Madrid?", (WEATHER,), "none")):
        if reply.calls:
            raise Fails(f"{reply.how}: {_brief(reply)}")
        if not reply.content:
            raise Missed(f"{reply.how}: no answer, but {_brief(reply)}")
    return "an answer"


@check("tool-choice-required", "With tool_choice required there is a call")
def tool_choice_required(asker: Asker) -> str:
    for reply in asker.both(Ask("Good morning! It is raining in Bern.", (WEATHER, TIME), "required")):
        if not reply.calls:
            raise Missed(f"{reply.how}: no call, but {_brief(reply)}")
        _right_calls(reply)
    return "a call"


@check("tool-choice-named", "With a tool named in tool_choice, that one is called")
def tool_choice_named(asker: Asker) -> str:
    for reply in asker.both(Ask("What is the weather in Tokyo?", (WEATHER, TIME), TIME)):
        if any(call.name != TIME.name for call in reply.calls):
            raise Fails(f"{reply.how}: {_brief(reply)} where {TIME.name} was named")
        _wants_call(reply, TIME)
    return "the tool that was named"


@check("arguments", "A call's arguments are JSON that the tool's schema allows: nested, enum, integer")
def arguments(asker: Asker) -> str:
    text = "Book a table outside at Luigi's at 19 o'clock for Ann and Bob. Use the tool."
    for reply in asker.both(Ask(text, (BOOKING,))):
        _wants_call(reply, BOOKING)
    return reply.calls[0].arguments


@check("parallel-calls", "Calls of one reply are told apart: an id and an index each")
def parallel_calls(asker: Asker) -> str:
    text = "What is the weather in Paris, and what is the time there? Call both tools at once, in this one turn."
    for reply in asker.both(Ask(text, (WEATHER, TIME), parallel=True)):
        _right_calls(reply)
        if len({call.id for call in reply.calls}) != len(reply.calls):
            raise Fails(f"{reply.how}: ids are not distinct: {[call.id for call in reply.calls]}")
        if len(reply.calls) < 2:
            raise Unclear(f"{reply.how}: the model made no two calls, but {_brief(reply)}")
    return f"{len(reply.calls)} calls"


# Formats and stop strings


@check("json-schema", "Content follows the JSON schema that was asked for")
def json_schema(asker: Asker) -> str:
    for reply in asker.both(Ask("Describe Ada Lovelace at 36, with two tags, as JSON.", schema=PERSON)):
        if problem := schema_problem(reply.content, PERSON):
            raise Missed(f"{reply.how}: {problem}")
    return reply.content


@check("stop", "A stop string ends the reply and is not shown", apis=("chat", "messages"))
def stop(asker: Asker) -> str:
    string = "\n4."
    text = "Write the first six planets from the sun as a numbered list, one a line, and nothing else."
    for reply in asker.both(Ask(text, stop=(string,))):
        if string in reply.content or "5." in reply.content:
            raise Fails(f"{reply.how}: it is not cut: {reply.content!r}")
        if "3." not in reply.content:
            raise Unclear(f"{reply.how}: the model wrote no list that could be cut, but {_brief(reply)}")
        _wants(reply, "stop")
        if asker.api.name == "messages" and reply.stopped_by != string:
            raise Fails(f"{reply.how}: stop_sequence is {reply.stopped_by!r}")
    return f"cut before {string!r}"


@check("stop-headers", "A stop string does not act on words that no client sees", apis=("chat", "messages"))
def stop_headers(asker: Asker) -> str:
    for string in ("analysis", "final", "assistant"):
        for reply in asker.both(Ask("What is the capital of France? Answer with one word.", stop=(string,))):
            if not reply.content and not reply.reasoning:
                raise Fails(f"{reply.how}: nothing came with the stop string {string!r}: it acts on headers")
            if found := leaks(reply):
                raise Fails(f"{reply.how}: {found[0]}")
            if not reply.content:
                raise Missed(f"{reply.how}: no answer came with the stop string {string!r}, but {_brief(reply)}")
    return "an answer"


# Errors


@check("errors", "A wrong request is refused with a 4xx that says why, in the API's shape; never a 5xx, never taken")
def errors(asker: Asker) -> str:
    bodies: dict[str, Json | bytes] = {"no JSON": b'{"model": ', **asker.api.wrong_bodies(asker.endpoint.model)}
    wrong = []
    for what, body in bodies.items():
        try:
            status, told = asker.endpoint.post(asker.api, body)
        except Fails as error:
            wrong.append(f"{what}: {error}")
            continue
        if not 400 <= status < 500:
            wrong.append(f"{what}: {status}")
        elif problem := asker.api.error_problem(told):
            wrong.append(f"{what}: {status}, {problem}")
    if wrong:
        raise Fails("; ".join(wrong))
    return f"{len(bodies)} wrong requests refused"


# Of all replies


@check("shapes", "Every reply has the API's fields and types, every stream its order of events", last=True)
def shapes(asker: Asker) -> str:
    kind, frames = asker.endpoint.frames(asker.api, PLAIN)
    if not kind.startswith("text/event-stream"):
        raise Fails(f"a stream is sent as {kind!r}")
    if problem := asker.api.frame_problem(frames):
        raise Fails(problem)
    seen = asker.seen()
    problems = [f"{reply.how}: {problem}" for reply in seen for problem in reply.problems]
    if problems:
        raise Fails(asker.most(problems))
    return f"{len(seen)} replies"


@check("leaks", "No marker and no header word is in content, reasoning, names or arguments", last=True)
def no_leaks(asker: Asker) -> str:
    seen = asker.seen()
    found = [f"{reply.how}: {leak} (asked {reply.ask.text[:40]!r})" for reply in seen for leak in leaks(reply)]
    if found:
        raise Fails(asker.most(found))
    return f"{len(seen)} replies"


@check("empty-content", "A message without content says so in one way, null or empty", apis=("chat",), last=True)
def empty_content(asker: Asker) -> str:
    found = {reply.empty for reply in asker.seen() if not reply.streamed and reply.empty is not None}
    if not found:
        raise Unclear("every message has content")
    if not found <= {"null", '""'} or len(found) > 1:
        raise Fails(f"content is {' or '.join(sorted(found))}")
    return f"content is {found.pop()}"


def _brief(reply: Reply) -> str:
    parts = [f"reasoning {reply.reasoning[:60]!r}"] if reply.reasoning else []
    parts += [f"content {reply.content[:80]!r}"] if reply.content else []
    parts += [f"call {call.name}({call.arguments[:80]})" for call in reply.calls]
    return ", ".join([*parts, f"finish {reply.finish}"])


def _wants(reply: Reply, reason: str) -> None:
    """Raises unless `reply` ended for `reason`."""
    if reply.finish != reason:
        raise Fails(f"{reply.how}: the finish reason is {reply.finish!r}, not {reason!r}")


def _right_calls(reply: Reply) -> None:
    """Raises unless all calls are of tools that were offered, with arguments that those take."""
    tools = {tool.name: tool for tool in reply.ask.tools}
    for call in reply.calls:
        if call.name not in tools:
            raise Missed(f"{reply.how}: {call.name!r} is no tool that was offered")
        if problem := tools[call.name].problem(call.arguments):
            raise Missed(f"{reply.how}: arguments of {call.name}: {problem}")


def _wants_call(reply: Reply, tool: Tool) -> None:
    """Raises unless `tool` is called, and all calls are right."""
    _right_calls(reply)
    if tool.name not in [call.name for call in reply.calls]:
        raise Missed(f"{reply.how}: no call of {tool.name}, but {_brief(reply)}")


def _same(asker: Asker, ask: Ask) -> Reply:
    """The reply, if a stream says what the whole reply says; asked twice where it does not, since models vary."""
    wholes, streams = [asker.whole(ask)], [asker.streamed(ask)]
    if wholes[0].said != streams[0].said:
        wholes.append(asker.whole(ask))
        streams.append(asker.streamed(ask))
    if any(whole.said == stream.said for whole in wholes for stream in streams):
        return wholes[0]
    if wholes[0].said == wholes[1].said and streams[0].said == streams[1].said:
        raise Fails(f"whole: {_brief(wholes[0])}; streamed: {_brief(streams[0])}")
    raise Unclear("the model says something else each time, at temperature 0")


def _usage_problem(usage: Usage) -> str | None:
    if usage.prompt < 1 or usage.completion < 1:
        return f"{usage.prompt} in, {usage.completion} out"
    if usage.total is not None and usage.total != usage.prompt + usage.completion:
        return f"total {usage.total} is not {usage.prompt} + {usage.completion}"
    return None
