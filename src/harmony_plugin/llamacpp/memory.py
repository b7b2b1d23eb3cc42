"""What of earlier prompts and replies is still known, so that it is not evaluated again: the prompt cache.

Sequences stay in the context's memory when their reply has ended. A new prompt goes on from the one with which it has
most in common: it takes that over where it is the same conversation's next turn, and else begins with a copy of the
common part, which costs no memory. When there is no number or no room left, the sequence that was used longest ago is
pushed out, to main memory and from there to disk as far as these may be used, from where it can come back.

Layers with a window forget what is behind it, so a sequence cannot simply be rewound: what such layers need at a place
is kept aside as a checkpoint where a reply begins (the next turn leaves that reply's reasoning out), and where
conversations were seen to part.

Knows ids and sequences; knows nothing of replies, and evaluates nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from .disk import DiskCache, File, Saved
from .engine import Engine
from .ids import Ids

__all__ = ["Memory", "Sequence"]

CHECKPOINTS = 4
"""Most that are kept of a sequence: the latest two, and of the others those that are farthest behind the one before."""
IDLE = 2_048
"""Ids that nobody goes on from, and that stay in the context in any case. llama.cpp's attention looks at all that is in
memory, whosever it is, so what lies idle there slows down the others."""
LEAST = 32
"""Ids from which on a sequence is worth keeping, and a common beginning worth waiting for."""


@dataclass(eq=False)
class _Known:
    """Ids that were evaluated.

    Attributes:
        prompt: how many of them were a prompt.
        checkpoints: what the windowed layers need to go on, by the number of ids in front of it.
        used: when it was last used; larger is later.
    """

    ids: Ids
    prompt: int = 0
    checkpoints: dict[int, bytes] = field(default_factory=dict)
    used: int = 0


@dataclass(eq=False)
class Sequence(_Known):
    """Ids that are in the context's memory.

    Attributes:
        number: llama.cpp's name for it.
        shared: how many of its ids were in memory already, as another one's.
        marks: where checkpoints are to be made when evaluating comes by.
        busy: whether a reply goes on from it.
    """

    number: int = 0
    shared: int = 0
    marks: set[int] = field(default_factory=set)
    busy: bool = False


@dataclass(eq=False)
class Parked(_Known):
    """Ids that were pushed out, and their state."""

    state: bytes = b""

    @property
    def size(self) -> int:
        return len(self.state) + sum(map(len, self.checkpoints.values()))


class Memory:
    """One context's sequences.

    Args:
        engine: the context.
        sequences: most that are kept in it.
        ram: bytes of main memory for what was pushed out; 0: none.
        disk: where what does not fit there goes; None: nowhere.

    Attributes:
        hits: prompts that went on from something known.
        evictions: sequences that were pushed out.
    """

    def __init__(self, engine: Engine, sequences: int, *, ram: int = 0, disk: DiskCache | None = None) -> None:
        self._engine = engine
        self._most = min(sequences, engine.sequences)
        self._ram = ram
        self._disk = disk
        self._sequences: list[Sequence] = []
        self._parked: list[Parked] = []
        self._clock = 0
        self.hits = 0
        self.evictions = 0

    @property
    def parked_bytes(self) -> int:
        """Main memory that is taken."""
        return sum(parked.size for parked in self._parked)

    def begin(self, prompt: Ids) -> Sequence | None:
        """A sequence for a reply to `prompt`, that has as much of it as is known, though never its last id, whose
        scores are wanted; None: all sequences are busy."""
        self._clock += 1
        most = len(prompt) - 1
        best: _Known | File | None = None
        length, place, parting = 0, None, 0
        for known in self._everything():
            common = known.ids.common(prompt)
            parting = max(parting, common)
            reach, checkpoint = self._reach(known, common, most)
            if reach > length or (reach == length > 0 and isinstance(best, Sequence) and best.busy):
                best, length, place = known, reach, checkpoint
        if isinstance(best, File):
            best = self._loaded(best)
            if best is None:
                return self.begin(prompt)  # a damaged file, which is known no more
        sequence = self._taken(best, length, place)
        if sequence is None:
            return None
        if sequence.ids:
            self.hits += 1
        if self._engine.window and parting > len(sequence.ids) + LEAST:
            sequence.marks.add(parting)
        sequence.busy, sequence.prompt, sequence.used = True, len(prompt), self._clock
        if self._ram:
            self._make_way()
        return sequence

    @property
    def used(self) -> int:
        """Ids that are in the context's memory."""
        return sum(len(sequence.ids) - sequence.shared for sequence in self._sequences)

    def reach(self, prompt: Ids) -> int:
        """How many ids of `prompt` a reply could begin with now."""
        most = len(prompt) - 1
        return max((self._reach(one, one.ids.common(prompt), most)[0] for one in self._everything()), default=0)

    def shared(self, prompt: Ids) -> int:
        """How many ids of `prompt` are in memory for a reply under way anyway."""
        return max((s.ids.common(prompt) for s in self._sequences if s.busy), default=0)

    def end(self, sequence: Sequence) -> None:
        """The reply is over; what it had may be gone on from."""
        self._clock += 1
        sequence.busy, sequence.used = False, self._clock
        sequence.marks.clear()
        if not sequence.ids:
            self._sequences.remove(sequence)

    def checkpoint(self, sequence: Sequence) -> None:
        """Remember what the windowed layers need to go on from here."""
        sequence.marks.discard(len(sequence.ids))
        kept = sequence.checkpoints
        if not self._engine.window or len(sequence.ids) in kept:
            return
        kept[len(sequence.ids)] = self._engine.state(sequence.number, windowed_only=True)
        if len(kept) > CHECKPOINTS:
            del kept[_dispensable(sorted(kept))]

    def make_room(self) -> bool:
        """Push out the sequence that was used longest ago; False: there is none that is not busy."""
        oldest = self._oldest(None)
        if oldest is not None:
            self._push_out(oldest)
        return oldest is not None

    def clear(self) -> None:
        """Push out all sequences: somebody else will use the context."""
        while self.make_room():
            pass

    def adopt(self, ids: list[int]) -> None:
        """Nothing is in memory but `ids`, in the first sequence."""
        self._sequences = [Sequence(Ids(ids), len(ids))] if ids else []

    def close(self) -> None:
        """Keep what is known on disk, as far as that may be used."""
        if self._disk is None:
            return
        self.clear()
        for parked in sorted(self._parked, key=lambda parked: parked.used):
            self._to_disk(parked)
        self._disk.close()

    def _everything(self) -> Iterator[_Known | File]:
        """What can be had the fastest comes first."""
        yield from self._sequences
        yield from self._parked
        if self._disk is not None:
            yield from self._disk.files

    def _loaded(self, file: File) -> Parked | None:
        saved = None if self._disk is None else self._disk.load(file)
        if saved is None:
            return None
        return Parked(saved.ids, saved.prompt, dict(saved.checkpoints), state=saved.state)

    def _reach(self, known: _Known | File, common: int, most: int) -> tuple[int, int | None]:
        """How much of a prompt can be had from `known`, and the checkpoint that takes; None: none."""
        length = min(common, most)
        if isinstance(known, Sequence):
            if length <= 0 or self._engine.goes_on_at(known.number, length):
                return length, None
        elif common == len(known.ids) or not self._engine.window:
            return length, None
        place = max((at for at in known.checkpoints if at <= common), default=0)
        return min(place, most), place

    def _taken(self, known: _Known | None, length: int, place: int | None) -> Sequence | None:
        if isinstance(known, Sequence) and not known.busy:
            same = length >= known.prompt - 1
            number = None if same else self._number(known)
            if number is None:
                if not same:
                    self._park(known)
                self._rewind(known, length, place)
                return known
            return self._copied(known, number, length, place)
        number = self._number(None)
        if number is None:
            return None
        if isinstance(known, Sequence):
            return self._copied(known, number, length, place)
        if isinstance(known, Parked):
            return self._back(known, number, length, place)
        return self._new(number)

    def _new(self, number: int) -> Sequence:
        sequence = Sequence(Ids(), number=number)
        self._sequences.append(sequence)
        return sequence

    def _copied(self, known: Sequence, number: int, length: int, place: int | None) -> Sequence:
        """A new sequence with the beginning of another one."""
        engine, sequence = self._engine, self._new(number)
        upto = length if place is None else place
        engine.copy(known.number, number, upto)
        if engine.window and (place is not None or not engine.roomy):
            # What both have of the windowed layers could not be given up while either is there: this has its own.
            state = known.checkpoints.get(upto) or engine.state(number, windowed_only=True)
            if not engine.restore(number, state, windowed_only=True):
                return sequence
            sequence.checkpoints = {at: kept for at, kept in known.checkpoints.items() if at < upto}
            sequence.checkpoints[upto] = state
        engine.cut(number, length)
        sequence.ids.extend(known.ids.view(0, length))
        sequence.shared = length
        return sequence

    def _back(self, parked: Parked, number: int, length: int, place: int | None) -> Sequence:
        """A new sequence from one that was pushed out."""
        sequence = self._new(number)
        if parked in self._parked and length >= parked.prompt - 1:
            self._parked.remove(parked)
        while not self._engine.restore(number, parked.state):
            oldest = self._oldest(sequence)
            if oldest is None:
                return sequence
            self._push_out(oldest)
        sequence.ids.extend(parked.ids.view())
        sequence.checkpoints = dict(parked.checkpoints)
        self._rewind(sequence, length, place)
        return sequence

    def _rewind(self, sequence: Sequence, length: int, place: int | None) -> None:
        engine = self._engine
        if place is not None and not (
            place and engine.restore(sequence.number, sequence.checkpoints[place], windowed_only=True)
        ):
            length = 0
        engine.cut(sequence.number, length)
        sequence.ids.cut(length)
        sequence.shared = min(sequence.shared, length)
        upto = place or length
        sequence.checkpoints = {at: kept for at, kept in sequence.checkpoints.items() if at <= upto} if length else {}

    def _number(self, spared: Sequence | None) -> int | None:
        """A number that no sequence has, of one that was pushed out if need be."""
        while True:
            taken = {sequence.number for sequence in self._sequences}
            free = next((number for number in range(self._most) if number not in taken), None)
            oldest = self._oldest(spared) if free is None else None
            if oldest is None:
                return free
            self._push_out(oldest)

    def _oldest(self, spared: Sequence | None) -> Sequence | None:
        """The sequence that was used longest ago, of those that are not busy."""
        idle = (one for one in self._sequences if not one.busy and one is not spared)
        return min(idle, key=lambda one: one.used, default=None)

    def _push_out(self, sequence: Sequence) -> None:
        self._park(sequence)
        self._engine.cut(sequence.number, 0)
        self._sequences.remove(sequence)
        self.evictions += 1

    def _make_way(self) -> None:
        """Push out what lies idle, as far as it is much beside what is gone on from, and main memory can keep it."""
        busy = sum(max(one.prompt, len(one.ids)) for one in self._sequences if one.busy)
        idle = sorted((one for one in self._sequences if not one.busy), key=lambda one: one.used)
        much = sum(len(one.ids) for one in idle) - max(IDLE, busy // 2)
        for one in idle:
            if much <= 0 or self._engine.state_size(one.number) > self._ram:
                return
            much -= len(one.ids)
            self._push_out(one)

    def _park(self, sequence: Sequence) -> None:
        """Keep a sequence outside of the context's memory, if there is anywhere to."""
        if (not self._ram and self._disk is None) or len(sequence.ids) < LEAST:
            return
        others = [*(one for one in self._sequences if one is not sequence), *self._parked]
        if any(other.ids.common(sequence.ids) >= sequence.prompt for other in others):
            return  # the conversation went on elsewhere
        if self._disk is None and self._engine.state_size(sequence.number) > self._ram:
            return
        state = self._engine.state(sequence.number)
        parked = Parked(sequence.ids, sequence.prompt, dict(sequence.checkpoints), sequence.used, state)
        self._parked = [one for one in self._parked if one.ids.common(parked.ids) < one.prompt]
        self._parked.append(parked)
        while self._parked and self.parked_bytes > self._ram:
            oldest = min(self._parked, key=lambda one: one.used)
            self._parked.remove(oldest)
            self._to_disk(oldest)

    def _to_disk(self, parked: Parked) -> None:
        if self._disk is not None:
            self._disk.keep(Saved(parked.ids, parked.prompt, parked.checkpoints, parked.state))


def _dispensable(places: list[int]) -> int:
    """The checkpoint without which the fewest ids have to be evaluated again, the latest two aside: an agent's loop has
    one each turn, and where its tools end must outlast them."""
    before = [0, *places]
    return min(places[:-2], key=lambda place: place - before[places.index(place)])
