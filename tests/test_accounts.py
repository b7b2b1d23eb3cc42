"""What the recoveries write down beside the text: offsets, token counts, channels, whether a message is whole.

Mutation testing found these unwatched (docs/mutation.md).
"""

from __future__ import annotations

import pytest

from feeding import codes, cut, encode
from harmony_plugin import Issue, Options, Stream, Vocabulary, parse

LONG = "word " * 200


@pytest.mark.parametrize(
    ("raw", "by_ids", "by_text"),
    [
        # A header that is due behind an end marker begins behind the marker.
        (
            "<|channel|>final<|message|>x<|end|><|channel|>final<|message|>y",
            [("missing_start", 5)],
            [("missing_start", 35)],
        ),
        ("<|end|>commentary<|end|>", [("stray_marker", 0), ("filler", 1)], [("stray_marker", 0), ("filler", 7)]),
        ("??<|end|>!<|end|>", [("loose_text", 0), ("loose_text", 2)], [("loose_text", 0), ("loose_text", 9)]),
        (
            f"<|channel|>analysis {LONG}<|end|>zz",
            [("header_too_long", 0), ("missing_message", 0), ("loose_text", 204)],
            [("header_too_long", 0), ("missing_message", 0), ("loose_text", 1027)],
        ),
        (
            f"{LONG}<|end|>assistant<|channel|>final<|message|>x",
            [("header_too_long", 0), ("missing_start", 202), ("loose_text", 0)],
            [("header_too_long", 0), ("missing_start", 1007), ("loose_text", 0)],
        ),
        (
            f"{LONG}<|channel|>final<|message|>x",
            [("header_too_long", 0), ("loose_text", 0), ("missing_start", 201)],
            [("header_too_long", 0), ("loose_text", 0), ("missing_start", 1000)],
        ),
        ("<|channel|>final<|message|>a<|message|>b", [("stray_marker", 4)], [("stray_marker", 28)]),
        ("<|channel|>final<|message|>a<|start|>assistant<|message|>b", [("missing_end", 4)], [("missing_end", 28)]),
        (
            "<|channel|>final<|message|>a<|channel|>final<|message|>b",
            [("missing_end", 4), ("missing_start", 4)],
            [("missing_end", 28), ("missing_start", 28)],
        ),
        # Loose text, too long for a header, in front of each marker that may begin or open a message.
        (
            f"{LONG}<|start|>assistant<|channel|>final<|message|>x",
            [("header_too_long", 0), ("loose_text", 0)],
            [("header_too_long", 0), ("loose_text", 0)],
        ),
        (
            f"{LONG}<|constrain|>json<|message|>x",
            [("header_too_long", 0), ("loose_text", 0), ("missing_start", 201)],
            [("header_too_long", 0), ("loose_text", 0), ("missing_start", 1000)],
        ),
        (
            f"{LONG}<|message|>x",
            [("header_too_long", 0), ("loose_text", 0), ("missing_start", 201)],
            [("header_too_long", 0), ("loose_text", 0), ("missing_start", 1000)],
        ),
    ],
)
def test_issues_say_where(raw: str, by_ids: list[tuple[str, int]], by_text: list[tuple[str, int]]) -> None:
    assert [(issue.code, issue.offset) for issue in parse(encode(raw)).issues] == by_ids
    assert [(issue.code, issue.offset) for issue in parse(raw).issues] == by_text


@pytest.mark.parametrize(
    ("raw", "count"),
    [
        ("<|channel|>analysis I must think<|end|>", 3),
        ("<|channel|>analysis I must think", 3),
        ("<|channel|>commentary I must think<|end|>", 3),  # its name takes two ids
        ("<|channel|>analysis I<|end|>", 1),
        ("<|channel|>analysis<|end|>", 0),
        ("loose one<|end|><|channel|>final<|message|>x", 3),
        ("loose one<|end|>", 0),
        ("loose one<|return|>", 0),
        ("<|channel|>commentary to=assistant<|message|>I note it<|end|>", 3),
        (f"<|channel|>analysis<|message|>{LONG}<|end|>", 201),
        ("<|channel|>final<|message|>I note it<|end|>", 0),
        # White space up to a header's limit, then words: not whose first id it was is asked, but where its text went.
        (f"<|channel|>analysis{' ' * 600}word one", 3),
        (f"<|channel|>analysis{' ' * 600}word", 2),
    ],
)
def test_reasoning_tokens_are_the_ids_of_its_text(raw: str, count: int) -> None:
    ids = encode(raw)
    assert parse(ids).reasoning_tokens == count
    for size, first in ((1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2)):
        stream = Stream()
        for chunk in cut(ids, range(first, len(ids), size)):
            stream.feed(chunk)
        stream.finish()
        assert stream.reasoning_tokens == count


@pytest.mark.parametrize("raw", ["<|channel|>analysis I must think<|end|>", "<|channel|>analysis<|message|>Hm<|end|>"])
def test_text_has_no_tokens_to_count(raw: str) -> None:
    stream = Stream()
    stream.feed(raw)
    stream.finish()
    assert (stream.reasoning_tokens, stream.reply.reasoning_tokens) == (0, None)


@pytest.mark.parametrize(
    ("raw", "complete"),
    [
        ("<|channel|>analysis I must think<|end|>", True),
        ("<|channel|>analysis I must think<|return|>", True),
        ("<|channel|>analysis I must think", False),
        ("<|channel|>analysis I must think<|start|>", False),
        ("<|channel|>final<|message|>x<|call|>", True),
        ("<|channel|>final<|message|>x", False),
        ("<|channel|>final<|message|>x<|channel|>", False),
        ("loose", False),
        ("loose<|end|>", False),
    ],
)
def test_a_message_is_complete_where_an_end_marker_closed_it(raw: str, complete: bool) -> None:
    for output in (raw, encode(raw)):
        assert [message.complete for message in parse(output).messages] == [complete]


def test_loose_text_has_the_channel_that_it_is_taken_for() -> None:
    assert parse("thought<|end|><|channel|>final<|message|>x").messages[0].channel == "analysis"
    assert parse("answer<|return|>").messages[0].channel is None


def at(raw: str, code: str, prompt: str | None = None) -> tuple[list[int], list[int]]:
    """Where issues of a code lie: in ids, in characters."""
    by_ids = parse(encode(raw), prompt=None if prompt is None else encode(prompt))
    by_text = parse(raw, prompt=prompt)
    return tuple([issue.offset for issue in reply.issues if issue.code == code] for reply in (by_ids, by_text))  # type: ignore[return-value]


def test_an_issue_about_a_body_lies_where_the_body_begins() -> None:
    assert at("<|channel|>side<|message|>x", "unknown_channel") == ([3], [26])
    assert at("<|channel|>final to=f<|message|>x", "arguments_not_json") == ([len(encode(" to=f")) + 3], [32])


@pytest.mark.parametrize(
    ("prompt", "raw", "code"),
    [
        ("<|start|>assistant to=f<|channel|>final<|message|>", "x", "arguments_not_json"),
        ("<|start|>assistant", "??<|end|>", "loose_text"),
        ("<|start|>assistant<|channel|>", "side<|end|>", "loose_text"),
        (f"<|start|>{LONG}", "??<|end|>", "loose_text"),
    ],
)
def test_offsets_count_from_where_the_output_begins(prompt: str, raw: str, code: str) -> None:
    assert at(raw, code, prompt) == ([0], [0])


def test_an_issue_has_none_of_the_prompts_words() -> None:
    assert parse(" bar<|end|>", prompt="<|start|>tool foo").issues == (Issue("foreign_role", 0, " bar"),)


@pytest.mark.parametrize("raw", ["Hi<|start|>assistant<|channel|>final<|message|>x", "comm<|end|>", "user<|end|>x"])
def test_a_prompt_that_ends_in_the_role_is_as_good_as_none(raw: str) -> None:
    assert parse(raw, prompt="<|start|>assistant")[:3] == parse(raw)[:3]
    assert parse(raw, prompt="<|start|>assistant").issues == parse(raw).issues


def test_a_prompt_that_opens_a_message_is_no_opening() -> None:
    reply = parse("x<|end|>Hi<|start|>assistant<|message|>y", prompt="<|start|>assistant<|message|>")
    assert reply.content == "x\ny"


def test_a_prompt_that_ends_in_a_long_header_is_as_good_as_start() -> None:
    for start in ("", "<|start|>", "<|start|>assistant"):
        reply = parse(f"{start}<|channel|>final<|message|>x<|end|>", prompt=f"<|start|>{LONG}")
        assert (reply.content, codes(reply)) == ("x", ["missing_role"] if start == "<|start|>" else [])


def test_one_letter_behind_start_may_become_a_role() -> None:
    reply = parse("<|start|>a")
    assert (reply.content, codes(reply)) == (None, ["incomplete_header"])


def test_a_header_holds_as_many_markers_as_characters() -> None:
    # Of 599 markers in turn 512 are held; of the rest, every second only repeats the one before.
    reply = parse("<|channel|><|constrain|>" * 299 + "<|channel|><|message|>x<|end|>")
    assert codes(reply).count("stray_marker") == 44
    assert reply.content == "x"


@pytest.mark.parametrize("word", [" word", " words", " wordy one", "x"])
def test_ids_that_the_header_limit_cuts_count_once(word: str) -> None:
    raw = "<|channel|>analysis" + word * 600
    assert parse(encode(raw)).reasoning_tokens == len(encode(raw)) - 2


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize(
    ("ids", "reasoning", "count"),
    [
        # commentary, spelled in one id and in ten: what counts is the ids of the words behind it.
        (["<|channel|>", "commentary", " so", " it", " is"], "so it is", 3),
        (["<|channel|>", *"commentary", " so", " it", " is"], "so it is", 3),
        (["<|channel|>", "comm", "entary", "?so", " it"], "?so it", 2),
        (["<|channel|>", "analysis", " ", "so", " it"], "so it", 2),
        (["<|channel|>", "analysi", "s<", "so", " it"], "<so it", 3),
        (["<|channel|>", "analysis", "<|constrain|>", "json", " so", " it"], "so it", 2),
        (["<|channel|>", "analysis", " json", "{", "}"], "{}", 2),
        (["<|channel|>", "analysis", b"\xf0\x9f", b"\x98\x80", " so"], "\U0001f600 so", 3),
        (["<|channel|>", "thought", "<|channel|>", "T", " so", "<|channel|>", "final", "<|channel|>", "X"], "T so", 2),
        (
            ["<|channel|>", "final", "<|message|>", "a", "<|end|>", "<|start|>", "assistant", " so", " it", "<|end|>"],
            None,
            0,
        ),
        (["<|start|>", "assistant", " so", " it", "<|end|>", "<|start|>", "assistant", "<|message|>", "x"], "so it", 2),
    ],
)
def test_reasoning_behind_a_missing_message_is_counted_by_its_ids(
    ids: list[str | bytes], reasoning: str | None, count: int, cut: bool
) -> None:
    dialect = Options().dialect
    markers = {text: dialect.ids[kind] for kind, text in dialect.markers.items()}
    pieces = {number: piece if isinstance(piece, bytes) else piece.encode() for number, piece in enumerate(ids)}
    output = [markers.get(piece, number) for number, piece in enumerate(ids)]  # type: ignore[arg-type]
    stream = Stream(decode=Vocabulary(pieces.__getitem__))
    for chunk in [[token] for token in output] if cut else [output]:
        stream.feed(chunk)
    stream.finish()
    assert (stream.reply.reasoning_content, stream.reasoning_tokens) == (reasoning, count)


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        *[
            (word, "analysis")
            for word in ("nalysis", "alysis", "xanalysis", "xxanalysis", "analysi", "analys", "anlyysis")
        ],
        *[(word, "analysis") for word in ("analysisx", "ANALYSIS", "analisis", "analizis")],
        *[(word, "commentary") for word in ("comentary", "comentery", "ommentary", "mmentary", "kommentary")],
        *[(word, "final") for word in ("finl", "fina", "finale", "inal", "nal", "xxfinal", "fnial")],
        *[(word, None) for word in ("lysis", "xxxanalysis", "analiziz", "fi", "xxxfinal", "ntary", "comment")],
    ],
)
def test_a_misspelled_channel_is_one_or_two_edits_away(word: str, meant: str | None) -> None:
    reply = parse(f"<|channel|>{word}<|message|>x<|end|>")
    assert reply.messages[0].channel == word
    assert codes(reply) == ["misspelled_channel" if meant else "unknown_channel"]
    assert (reply.reasoning_content is not None) == (meant == "analysis")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("<|channel|>json<|message|>x", ("assistant", None, None, "json")),
        ("<|channel|>final <|constrain|>one two<|message|>x", ("assistant", "final", None, "<|constrain|>one")),
        ("<|end|><|start|>functions.f<|message|>x", ("tool", None, None, None)),
        ("<|end|><|start|>functions.f to=assistant<|message|>x", ("tool", None, "assistant", None)),
    ],
)
def test_what_a_header_says(raw: str, message: tuple[str | None, ...]) -> None:
    assert parse(raw).messages[0][:4] == message


def test_the_same_channel_twice_is_said() -> None:
    reply = parse("<|channel|>final<|channel|>final<|message|>x<|end|>")
    assert [issue[::2] for issue in reply.issues] == [("repeated_channel", "")]


def test_a_custom_channel_is_known_by_its_whole_name() -> None:
    options = Options(channels={"side": "reasoning"})
    for name, field in (("side", "reasoning_content"), ("othe", "content"), ("sides", "content"), ("sid", "content")):
        assert getattr(parse(f"<|channel|>{name}<|message|>x<|end|>", options=options), field) == "x"


def test_half_a_word_in_front_of_a_whole_one_is_no_header_that_could_go_on() -> None:
    assert parse("<|channel|>commentary t json").reasoning_content == "t json"
    assert codes(parse("<|channel|>commentary t")) == ["incomplete_header"]
