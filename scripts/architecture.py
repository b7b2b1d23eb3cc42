"""The state machine's diagram, drawn from its table: what docs/architecture.md shows, and a test holds.

The table says which move a state makes at which kind of token; each is made here, from every way into its state that
makes a difference, and drawn to where it leads. Prints the diagram; with `--write`, puts it into the page.

    python -m scripts.architecture --write
"""

from __future__ import annotations

from pathlib import Path

from scripts import generated

from harmony_plugin.core import machine, tokens

PART = generated.Part(Path(__file__).resolve().parent.parent / "docs" / "architecture.md", "scripts/architecture.py")

STATES = {machine.HEADER: "HEADER", machine.BODY: "BODY", machine.LOOSE: "LOOSE"}
KINDS = {kind: name for name, kind in tokens.KIND_OF.items() if name != "endoftext"} | {
    tokens.RESERVED: "reserved id",
    tokens.UNKNOWN: "unknown id",
    tokens.INVALID: "bytes that are not UTF-8",
}
TOO_LONG = "word " * 120
"""Text that no header holds."""

# Ways into the states: a header that is due, begun, named, or has a body's words in front of its channel; text past a
# header's limit; an open message.
Way = list[tuple[int, str]]
WAYS: tuple[Way, ...] = (
    [],
    [(tokens.START, "")],
    [(tokens.START, ""), (tokens.TEXT, "assistant")],
    [(tokens.CHANNEL, ""), (tokens.TEXT, "final")],
    [(tokens.CHANNEL, ""), (tokens.TEXT, "analysis so"), (tokens.CHANNEL, ""), (tokens.TEXT, "final")],
    [(tokens.TEXT, TOO_LONG)],
    [(tokens.MESSAGE, ""), (tokens.TEXT, "Hi")],
)


def state_after(way: Way) -> int:
    reading = machine.Machine()
    reading.feed([(kind, text, place, 1) for place, (kind, text) in enumerate(way)])
    return reading.state


def moves() -> dict[tuple[int, int], list[str]]:
    """What leads from a state to a state, in words."""
    found: dict[tuple[int, int], list[str]] = {}
    for way in WAYS:
        begin = state_after(way)
        steps = [(tokens.TEXT, "Hi", "text"), *((kind, "", label) for kind, label in KINDS.items())]
        if begin == machine.HEADER:
            steps.insert(1, (tokens.TEXT, TOO_LONG, "text past the limit"))
        for kind, text, label in steps:
            labels = found.setdefault((begin, state_after([*way, (kind, text)])), [])
            if label not in labels:
                labels.append(label)
    return found


def diagram() -> str:
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {STATES[state_after([])]}"]
    lines += [
        f"    {STATES[begin]} --> {STATES[end]}: {', '.join(what)}" for (begin, end), what in sorted(moves().items())
    ]
    return "\n".join([*lines, "```"]) + "\n"


if __name__ == "__main__":
    generated.main(__doc__, PART, diagram)
