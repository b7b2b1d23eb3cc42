"""Stop strings over events: one rule, for every server.

A stop string is sought in each field that the client sees, in the text of one message at a time, never in a header nor
across one. The match that ends first counts; of two that end together, the one that begins first. Text in front of it
is given out, nothing behind it; text that may become a stop string is held until it is one or cannot become one.

Knows events and nothing of tokens, servers or limits: who generates ends when `StopStrings.matched` is set.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable

from .events import FIELDS, Ended, Event, Field, Started, Text

__all__ = ["StopStrings"]


class _Node:
    """A state of the automaton: what of the text's end is the beginning of a stop string, and the longest such."""

    __slots__ = ("depth", "fall", "found", "next")

    def __init__(self, depth: int) -> None:
        self.next: dict[str, _Node] = {}
        self.depth = depth
        self.fall: _Node | None = None
        #: The longest stop string that ends here.
        self.found: str | None = None


class StopStrings:
    """Cuts a reply's events at the first stop string. One for one reply; the work is that of the text.

    Args:
        strings: the stop strings; empty ones are none.
        shown: the fields that the client sees. Text of others passes through, unsearched.
        include: cut where the stop string ends, not where it begins.
    """

    __slots__ = ("_held", "_include", "_lane", "_node", "_over", "_root", "_shown", "in_call", "matched")

    def __init__(self, strings: Iterable[str], *, shown: Collection[Field] = FIELDS, include: bool = False) -> None:
        self._root = self._node = _automaton(strings)
        self._shown = shown
        self._include = include
        self._held = ""
        # The piece of text seen last, for the field and call that held text belongs to.
        self._lane: Text | None = None
        self._over = False
        #: The stop string that ended the reply, and whether it stood in a call's arguments: that call is cut short.
        self.matched: str | None = None
        self.in_call = False

    def feed(self, events: Iterable[Event], armed: bool = True) -> list[Event]:
        """The events with their text cut and held. After a match: no more than the end of the message it stood in.

        Args:
            armed: False: text that ends in these events stops nothing (a minimum of tokens is not reached yet).
        """
        out: list[Event] = []
        for event in events:
            if self.matched is not None:
                if isinstance(event, Ended) and not self._over:
                    out.append(event)
                    self._over = True
            elif isinstance(event, Text):
                if event.field in self._shown and self._root.next:
                    self._text(event, armed, out)
                else:
                    out.append(event)
            else:
                self._release(out)
                out.append(event)
                if isinstance(event, Started):
                    self._over = False
        return out

    def finish(self, events: Iterable[Event] = ()) -> list[Event]:
        """The reply ends with these events: what was held is given out, unless a stop string was met."""
        out = self.feed(events)
        self._release(out)
        return out

    def _text(self, event: Text, armed: bool, out: list[Event]) -> None:
        node, root, text = self._node, self._root, event.text
        self._lane = event
        for place, character in enumerate(text):
            while character not in node.next and node.fall is not None:
                node = node.fall
            node = node.next.get(character, root)
            if node.found is not None and armed:
                self.matched = node.found
                self.in_call = event.field == "tool_call"
                whole = self._held + text[: place + 1]
                self._held = ""
                self._give(whole if self._include else whole[: len(whole) - len(node.found)], out)
                return
        self._node = node
        whole = self._held + text
        hold = 0 if self._include else node.depth
        self._held = whole[len(whole) - hold :]
        self._give(whole[: len(whole) - hold], out)

    def _give(self, text: str, out: list[Event]) -> None:
        if text:
            assert self._lane is not None
            out.append(self._lane._replace(text=text))

    def _release(self, out: list[Event]) -> None:
        """The message's text is complete: nothing of it can become a stop string any more."""
        held, self._held, self._node = self._held, "", self._root
        self._give(held, out)


def _automaton(strings: Iterable[str]) -> _Node:
    """All strings in one automaton (Aho and Corasick's), so that a character costs the same however many there are."""
    root = _Node(0)
    for string in filter(None, strings):
        node = root
        for character in string:
            node = node.next.setdefault(character, _Node(node.depth + 1))
        node.found = string
    waiting = deque(root.next.values())
    for node in waiting:
        node.fall = root
    while waiting:
        node = waiting.popleft()
        for character, after in node.next.items():
            fall = node.fall
            while fall is not None and character not in fall.next:
                fall = fall.fall
            after.fall = root if fall is None else fall.next[character]
            if after.found is None:
                after.found = after.fall.found
            waiting.append(after)
    return root
