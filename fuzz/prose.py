"""Prose where a header is due: sentences, URLs, JSON, code, shell lines, many scripts, headers quoted in sentences.

The promise that decides it: **text that holds a word which is no part of a header is in reasoning, content or
arguments, never only in an issue** - but for roles that the model plays, what a setting drops, and text between two
messages that nothing but the next one's start closed (SPEC section 5). Each run of prose is inked with a word of its
own, which must be found exactly once, and as the generator knows what it wrote, also where: text behind ``final`` and
of a reply with no other words in content, behind ``analysis`` never there. Promises 1 to 4 are checked beside it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from random import Random
from typing import Any, NamedTuple

from . import grammar
from .mutation import Ink, setting
from .promises import Broken, check, ink
from .transcript import Piece, marker, text, to_ids, to_text
from .vocabulary import encoding

_SENTENCES = (
    "The answer is 4.",
    "Open https://x.test/convert?from=eur&to=usd in a browser.",
    "See https://x.test/a/b?to=c#to=d, or mailto:ann@x.test?to=bob@x.test.",
    "functions.search is what you want; it takes to=functions.get as an option.",
    "Write to=functions.search behind the channel, as in commentary to=functions.search json.",
    "The header reads assistant to=functions.search and then the body.",
    "user accounts live in /etc/passwd.",
    "system calls, developer tools and tool use: assistant code.",
    "assistants and users alike.",
    "final answer: analysis paralysis, with commentary.",
    "analysis of the text shows that commentary is final.",
    "thinking about it, I thought the reasoning was fine.",
    "finally, an analyst's commentaries.",
    "json and code are types; xml is, too.",
    "JSON: see below.",
    '{"answer": 4, "to": "to=usd", "functions.search": ["?to=x", null]}',
    '[{"to=": 1}, "functions."]',
    "{'not': json, to=functions.search}",
    "def functions(to=None): return to == functions.search",
    "    for i in range(3):\n        print(i, to=sys.stderr)\n",
    "const to=functions.search({to: 1}); // final",
    "curl -s 'http://127.0.0.1:8000/v1?to=b' | jq .a --arg to=c > out.json",
    "git log --since=2.days --to=HEAD -- functions.sh",
    "| a | to=b |\n|---|---|\n| functions.c | d |",
    "# to=functions.search\n\n* final\n* analysis\n",
    "Ich öffne https://x.test/?von=a&to=b für dich, gleich.",
    "Открой страницу ?to=usd и functions.search тоже.",
    "打开 https://x.test/?to=usd 然后 functions.搜索 看看。",
    "ブラウザで?to=usdを開いてください。",
    "افتح الصفحة ?to=usd الآن",
    "हिन्दी में to=functions.search लिखें",
    "\U0001f980 crab, to=\U0001f980, naïve café",
    "to=functions.search is how a call begins",
    "to=usd",
    "?to=usd&functions.search",
    "a<b && c>d || to=e",
    "the <|im_end|> marker, </s>, [INST] and <think>",
)
_QUOTED = "He wrote <|start|>assistant<|channel|>commentary to=functions.search<|message|>{}<|call|> in full."
_PLAIN = ("The", "answer", "follows", "here,", "so", "we", "look", "at:", "Paris;", "münchen", "東京", "далее", "x=1")


class Written(NamedTuple):
    """A transcript; the ink that must be in a field, and of it what must, and what must not, be in content."""

    pieces: list[Piece]
    spoken: list[str]
    content: list[str]
    reasoning: list[str]


def prose(random: Random, word: str, as_text: bool) -> str:
    """Some sentences with ``word`` as a word of its own among them, never at the very beginning."""
    parts = [random.choice(_SENTENCES) for _ in range(random.choice((1, 1, 1, 2, 3)))]
    if not as_text and random.random() < 0.1:
        parts.insert(random.randint(0, len(parts)), _QUOTED)
    if random.random() < 0.1:
        parts.append(json.dumps({random.choice(_PLAIN): random.choice(_SENTENCES)}, ensure_ascii=random.random() < 0.5))
    if random.random() < 0.15:  # around and beyond the longest header there may be
        size = random.choice((300, 480, 500, 508, 512, 516, 900, 5000))
        parts.append(" ".join(random.choice(_PLAIN) for _ in range(size // 5)))
        random.shuffle(parts)
    place = random.randint(1, len(parts))
    parts.insert(place, f"is {word} and" if random.random() < 0.5 else f"said {word}.")
    return random.choice((" ", " ", "\n", "\n\n")).join(parts)


def _behind(random: Random) -> list[Piece]:
    """What ends a run of prose. Nothing: the output ends there."""
    return random.choice(([marker("end")], [marker("return")], [marker("call")], [marker("endoftext")]))


def generate(random: Random, as_text: bool) -> Written:
    """Well-formed messages, with prose where a header is due between and behind them."""
    new = Ink()
    out = Written([], [], [], [])
    size = random.choice((1, 1, 2, 3, 5))
    for place in range(size):
        last = place == size - 1
        if not last and random.random() < 0.4:
            message = grammar.message(random, first=not out.pieces, last=False, longest=12)
            out.pieces.extend(message.pieces)
            continue
        _place(out, random, new, as_text, opening=not out.pieces)
        out.pieces.extend(_behind(random) if not last or random.random() < 0.6 else [])
        if out.pieces[-1] not in [marker(kind) for kind in ("end", "return", "call", "endoftext")]:
            break
    return out


def _place(out: Written, random: Random, new: Ink, as_text: bool, opening: bool) -> None:
    """One run of prose, in one of the places where a header is due."""
    word = new()
    words = prose(random, word, as_text)
    out.spoken.append(word)
    start = [] if opening else [marker("start"), text("assistant")]
    style = random.randrange(7)
    if style == 0:  # nothing of a header at all
        out.pieces.append(text(words))
    elif style == 1:  # the role alone
        out.pieces.extend([marker("start"), text(random.choice(("assistant ", "assistant\n", "assistant: ")) + words)])
    elif style == 2:  # a role word in the channel's place
        out.pieces.extend([*start, marker("channel"), text(f"assistant {words}")])
    elif style in (3, 4):  # a channel, and no <|message|>
        channel = random.choice(("analysis", "commentary", "final"))
        to = random.choice(("", "", " to=functions.search", " to=python", " to=assistant"))
        out.pieces.extend([*start, marker("channel"), text(f"{channel}{to} {words}")])
        (out.content if channel == "final" else out.reasoning).append(word)
    elif style == 5:  # the channel in the role's place
        channel = random.choice(("analysis", "commentary", "final"))
        out.pieces.extend([marker("start"), text(f"assistant{channel} {words}")])
        (out.content if channel == "final" else out.reasoning).append(word)
    else:  # <|channel|> in the place of <|message|>
        other = new()
        out.spoken.append(other)
        between = [marker("channel")] if random.random() < 0.5 else []
        out.pieces.extend([*start, marker("channel"), text("analysis"), *between, text(f" so {words}")])
        out.pieces.extend([marker("channel"), text("final"), marker("channel"), text(f"so {other} it is")])
        out.reasoning.append(word)
        out.content.append(other)


def try_written(written: Written, seed: int, as_text: bool, settings: dict[str, Any]) -> tuple[int, str | None]:
    """How long the output is, and which promise it breaks, if any."""
    random = Random(seed)
    output: str | list[int] = to_text(written.pieces) if as_text else to_ids(written.pieces, random)
    if not as_text and settings["prompt"] is not None:
        settings = {**settings, "prompt": encoding().encode(settings["prompt"], allowed_special="all")}
    try:
        reply = check(output, random, **settings)
        fields = [reply.reasoning_content or "", reply.content or "", *(call.arguments for call in reply.tool_calls)]
        _check(written, ink([reply.content or ""]), ink(fields))
    except Broken as error:
        return len(output), str(error)
    except Exception as error:
        return len(output), f"total: {type(error).__name__}: {error}"
    return len(output), None


def _check(written: Written, in_content: Any, in_fields: Any) -> None:
    for word in written.spoken:
        if in_fields[word] != 1:
            raise Broken(f"spoken: {word}, of no header, is {in_fields[word]} times in fields")
    for word in written.content:
        if not in_content[word]:
            raise Broken(f"spoken: {word}, said on final, is not in content")
    for word in written.reasoning:
        if in_content[word]:
            raise Broken(f"no leak: {word}, said on analysis or commentary, is in content")


def check_seed(seed: int) -> tuple[int, str | None]:
    """One transcript by ids or by text: how many tokens it has, and what broke."""
    random = Random(seed)
    as_text = random.random() < 0.4
    written = generate(random, as_text)
    settings = setting(random)
    # A prompt that ends inside a header or body makes something else of what follows; settings drop commentary.
    settings["prompt"] = random.choice((None, "<|start|>user<|message|>hi<|end|><|start|>assistant"))
    if settings["options"].arguments == "repair":
        settings["options"] = type(settings["options"])()
    size, broken = try_written(written, seed, as_text, settings)
    tokens = size if not as_text else len(to_ids(written.pieces))
    return tokens, broken and f"{broken}\n    {report(written.pieces, as_text)}\n    {settings}"


def report(pieces: Sequence[Piece], as_text: bool) -> str:
    return f"text {to_text(pieces)!r}" if as_text else f"ids {pieces!r}"
