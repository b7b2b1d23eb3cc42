"""Many replies at once on one context: the only decode loop.

A step is one `llama_decode` of what is next of every reply under way, and of a slice of the prompts that are being
evaluated; then each reply draws its next id and splits it. Replies come and go between steps.

Knows replies as ids that are waited for and scores that are handed over (`Generation`), and what is in memory
(`Memory`); knows nothing of requests, threads or HTTP. One thread at a time may use it.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ..api.reply import Piece
from .engine import DecodeError, Engine, NoRoom
from .generation import Generation
from .memory import LEAST, Memory, Sequence

__all__ = ["Cancelled", "Counters", "Job", "Scheduler"]

log = logging.getLogger("harmony_plugin.llamacpp")

FEW = 16
"""Ids of a reply that are still to be evaluated, up to which it counts as generating rather than as reading."""
NGRAM = 3
"""Ids by which a place in what was written is known again, for drafts."""


class Cancelled(Exception):
    """Nobody waits for the rest of a reply. It is raised rather than ending the reply: half a reply is none."""


@dataclass
class Counters:
    """What was done, ever.

    Attributes:
        evaluated: ids put through the model.
        generated: ids of replies.
        drafted: ids that were guessed; `accepted`: those of them that were right.
        decoding: seconds in llama.cpp; `sampling`: on masks and draws; `splitting`: on events.
    """

    steps: int = 0
    evaluated: int = 0
    generated: int = 0
    drafted: int = 0
    accepted: int = 0
    decoding: float = 0.0
    sampling: float = 0.0
    splitting: float = 0.0


@dataclass(eq=False)
class Job:
    """A reply under way.

    Attributes:
        took: given each piece as it comes.
        ended: called once, when no more comes; with what went wrong, if anything did.
        sequence: what of it is in memory; None: it waits.
        shared: how many of its ids are in memory for another reply anyway.
        began: when its prompt was first worked on, by `time.monotonic`; `first`: when that was done.
    """

    generation: Generation
    took: Callable[[Piece], None]
    ended: Callable[[BaseException | None], None]
    sequence: Sequence | None = None
    shared: int = 0
    began: float | None = None
    first: float | None = None
    over: bool = False
    lookup: Lookup | None = None

    @property
    def pending(self) -> int:
        """Ids that are still to be evaluated before the next can be drawn."""
        return len(self.generation.ids) - (0 if self.sequence is None else len(self.sequence.ids))


class Scheduler:
    """The replies of one context.

    Args:
        memory: the context's.
        parallel: most replies under way at a time; more wait.
        drafts: most ids that are guessed ahead for a reply that runs alone; 0: none.

    Attributes:
        waiting: replies that have not begun, in the order in which they will.
        running: those that have, the oldest first.
    """

    def __init__(self, engine: Engine, memory: Memory, *, parallel: int = 1, drafts: int = 0) -> None:
        self.engine = engine
        self.memory = memory
        self.parallel = max(1, min(parallel, engine.sequences, engine.batch_size))
        self.drafts = drafts
        self.waiting: deque[Job] = deque()
        self.running: list[Job] = []
        self.counters = Counters()
        # A reply had to give way for want of room: nobody else begins before somebody has ended.
        self._tight = False
        engine.stop = self.abandoned

    @property
    def idle(self) -> bool:
        """Nothing is to be done."""
        return not self.running and not self.waiting

    def add(
        self,
        generation: Generation,
        took: Callable[[Piece], None],
        ended: Callable[[BaseException | None], None],
    ) -> Job:
        """Take a reply. It begins at a later `step`."""
        job = Job(generation, took, ended)
        self.waiting.append(job)
        return job

    def abandoned(self) -> bool:
        """Whether nobody waits for any reply under way. May be asked from llama.cpp's computation."""
        return bool(self.running) and all(job.generation.cancelled() for job in self.running)

    def drop(self, jobs: Iterable[Job]) -> None:
        """Nobody wants these any more."""
        for job in jobs:
            if not job.over:
                self._end(job, Cancelled())

    def favour(self, jobs: Iterable[Job]) -> None:
        """Let one of these run now, if none does: another gives way, if need be."""
        jobs = [job for job in jobs if not job.over]
        if not jobs or any(job in self.running for job in jobs):
            return
        if len(self.running) >= self.parallel:
            self._give_way(self.running[-1])
        for job in reversed(jobs):
            self.waiting.remove(job)
            self.waiting.appendleft(job)

    def close_reasoning(self, job: Job) -> bool:
        """Have a reply open its answer now; False: it is not reasoning."""
        if job.over or job.generation.stream.field != "reasoning":
            return False
        self._hand_over(job, job.generation.close_reasoning)
        return True

    def step(self) -> bool:
        """Go on by one id of each reply, and a slice of a prompt. False: there was nothing to do."""
        for job in [*self.running, *self.waiting]:
            if job.generation.cancelled():
                self._end(job, Cancelled())
        self._begin()
        if not self.running:
            return False
        try:
            self._advance()
        except DecodeError as error:
            for job in self.running:
                if job.sequence is not None:
                    self.engine.cut(job.sequence.number, len(job.sequence.ids))
            if not self.abandoned():
                log.error("llama.cpp: %s", error)
                for job in [*self.running]:
                    self._end(job, error)
        return True

    def vacate(self) -> None:
        """Leave the context to somebody else, for as long as no reply is under way."""
        self.memory.clear()
        self.engine.lend()

    def close(self) -> None:
        """End everything, and keep what is known."""
        self.drop([*self.running, *self.waiting])
        self.memory.close()

    # Who runs

    def _begin(self) -> None:
        """Let those begin for whom there is room."""
        if not self.running:
            self._tight = False
        for job in [*self.waiting]:
            if len(self.running) >= self.parallel or self._tight:
                return
            ids = job.generation.ids
            if self._somebody_reads(job):
                continue
            used = sum(len(other.generation.ids) + 1 - other.shared for other in self.running)
            shared = self.memory.shared(ids)
            if self.running and used + len(ids) - shared > self.engine.context_size:
                return
            if not self._start(job, shared):
                return

    def _somebody_reads(self, job: Job) -> bool:
        """Whether a prompt that is being evaluated begins as this one does: it is waited for, and then copied."""
        ids, reach = job.generation.ids, None
        for other in self.running:
            if other.first is not None or other.sequence is None:
                continue
            common = other.generation.ids.common(ids)
            if common <= max(LEAST, len(other.sequence.ids)):
                continue
            reach = self.memory.reach(ids) if reach is None else reach
            same = common == len(ids)  # another choice of one request, say
            if min(common, len(ids) - 1) > reach + (0 if same else LEAST):
                other.sequence.marks.add(common)
                return True
        return False

    def _start(self, job: Job, shared: int) -> bool:
        generation = job.generation
        if not self.running:
            # `Llama` may have been used in between, and have a cache of its own.
            self.engine.load(generation.ids.view(0, generation.prompt_tokens).tolist())
            found = self.engine.adopt()
            if found is not None:
                self.memory.adopt(found)
        sequence = self.memory.begin(generation.ids)
        if sequence is None:
            return False
        sequence.prompt = generation.prompt_tokens
        if generation.parting > len(sequence.ids):
            sequence.marks.add(generation.parting)
        self.waiting.remove(job)
        self.running.append(job)
        job.sequence, job.shared = sequence, min(shared, len(sequence.ids))
        if job.began is None:
            job.began = time.monotonic()
            generation.cached_tokens = min(len(sequence.ids), generation.prompt_tokens)
            self._hand_over(job, generation.start)
        return True

    def _give_way(self, job: Job) -> None:
        """Take a reply out until there is room for it again."""
        assert job.sequence is not None
        self.memory.end(job.sequence)
        job.sequence = None
        self.running.remove(job)
        self.waiting.appendleft(job)

    def _end(self, job: Job, error: BaseException | None) -> None:
        job.over = True
        if job in self.running:
            self.running.remove(job)
        else:
            self.waiting.remove(job)
        self._tight = False
        if job.sequence is not None:
            sequence, job.sequence = job.sequence, None
            self.engine.cut(sequence.number, len(sequence.ids))  # what was guessed wrong
            self.memory.end(sequence)
            if not self.running:
                self.engine.leave(sequence.ids.view())
                if error is None or isinstance(error, Cancelled):
                    self.engine.save(sequence.ids.view().tolist())
        ended, job.took, job.ended = job.ended, _nothing, _nothing
        ended(error)

    # A step

    def _advance(self) -> None:
        while True:
            wanted = self._fill()
            # llama.cpp says so on standard error when it finds no room; it is asked only if it may have some.
            while self.memory.used + self.engine.batched > self.engine.context_size and self.memory.make_room():
                pass
            began = time.perf_counter()
            try:
                rows = self.engine.decode()
                break
            except NoRoom:
                if self.memory.make_room():
                    continue
                if len(self.running) > 1:
                    log.info("a reply waits: the context's memory is full")
                    self._give_way(self.running[-1])
                    self._tight = True
                    continue
                self._hand_over(self.running[0], self.running[0].generation.end)
                return
            finally:
                self.counters.decoding += time.perf_counter() - began
        self.counters.steps += 1
        for job, ids, row, place in wanted:
            sequence = job.sequence
            if sequence is None:  # ended with another choice of its request
                continue
            self.counters.evaluated += len(ids)
            if row is None:
                sequence.ids.extend(ids)
                if len(sequence.ids) in sequence.marks:
                    self.memory.checkpoint(sequence)
                self._tell(job)
            else:
                self._draw(job, sequence, ids, rows, row, place)

    def _fill(self) -> list[tuple[Job, Any, int | None, int]]:
        """Put the next batch together.

        Returns:
            for each reply that takes part: its ids, the number of its first row of scores (None: it is still reading),
            and the place in the batch of the id that it is for.
        """
        engine = self.engine
        wanted: list[tuple[Job, Any, int | None, int]] = []
        reading = []
        for job in self.running:
            assert job.sequence is not None
            if job.first is None or job.pending > FEW:
                reading.append(job)
                continue
            at = len(job.sequence.ids)
            ids = job.generation.ids.view(at)
            drafts = self._guesses(job)
            if drafts:
                ids = [*ids.tolist(), *drafts]
            row = engine.add(job.sequence.number, ids, at, 1 + len(drafts))
            wanted.append((job, ids, row, engine.batched - 1 - len(drafts)))
        for job in reading:
            sequence = job.sequence
            assert sequence is not None
            room = engine.batch_size - engine.batched
            if room <= 0:
                break
            at = len(sequence.ids)
            end = min(at + room, len(job.generation.ids), *(mark for mark in sequence.marks if mark > at))
            whole = end == len(job.generation.ids)
            ids = job.generation.ids.view(at, end)
            row = engine.add(sequence.number, ids, at, int(whole))
            wanted.append((job, ids, row if whole else None, engine.batched - 1))
        return wanted

    def _draw(self, job: Job, sequence: Sequence, ids: Any, rows: Any, row: int, place: int) -> None:
        """Let a reply go on, by one id, or by those that were guessed right."""
        generation = job.generation
        at, known = len(sequence.ids), len(generation.ids)
        drafted = at + len(ids) - known
        sequence.ids.extend(ids[: len(ids) - drafted] if drafted else ids)
        if job.first is None:
            job.first = time.monotonic()
            self.memory.checkpoint(sequence)
            self._tell(job)
        taken = 0
        while True:
            number = row + taken
            self._hand_over(job, lambda: generation.step(rows[number], place + taken))  # noqa: B023
            if job.over or not drafted:
                break
            more = generation.ids.view(known + taken).tolist()
            guessed = ids[known - at + taken : known - at + taken + len(more)]
            if len(more) != len(guessed) or more != guessed:
                break
            sequence.ids.extend(more)
            taken += len(more)
            self.counters.accepted += len(more)
        self.counters.drafted += drafted
        if drafted and not job.over:
            self.engine.cut(sequence.number, len(sequence.ids))

    def _hand_over(self, job: Job, go_on: Callable[[], list[Piece]]) -> None:
        """Have a reply go on; its errors are its own."""
        generation = job.generation
        before, split = generation.completion_tokens, generation.splitting
        began = time.perf_counter()
        try:
            for piece in go_on():
                job.took(piece)
        except Exception as error:
            self._end(job, error)
            return
        split = generation.splitting - split
        self.counters.splitting += split
        self.counters.sampling += time.perf_counter() - began - split
        self.counters.generated += generation.completion_tokens - before
        if generation.ended:
            self._end(job, None)

    def _guesses(self, job: Job) -> list[int]:
        if not self.drafts or len(self.running) > 1:
            return []
        if job.lookup is None:
            job.lookup = Lookup(self.drafts)
        room = min(self.engine.context_size - len(job.generation.ids), self.engine.batch_size - FEW) - 1
        return job.lookup.guess(job.generation.ids.view())[: max(0, room)]

    def _tell(self, job: Job) -> None:
        if log.isEnabledFor(logging.DEBUG) and job.sequence is not None:
            log.debug("prompt: %d of %d ids evaluated", len(job.sequence.ids), len(job.generation.ids))


def _nothing(_: object) -> None:
    """In the place of calls that are over: they hold what holds their job, and a reply takes a megabyte."""


class Lookup:
    """Guesses what comes next: what stood behind the same few ids before, in the prompt or the reply."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._places: dict[tuple[int, ...], int] = {}
        self._seen = 0

    def guess(self, ids: Any) -> list[int]:
        """The likely ids behind `ids`; the work is that of the ids that are new since the last time."""
        count = len(ids)
        new: list[int] = ids[max(0, self._seen - NGRAM) : count].tolist()
        first = max(0, self._seen - NGRAM)
        for end in range(max(NGRAM, self._seen), count):  # the last run of ids is the one that is sought
            self._places[tuple(new[end - NGRAM - first : end - first])] = end
        self._seen = max(self._seen, count)
        place = self._places.get(tuple(new[-NGRAM:])) if count >= NGRAM else None
        return [] if place is None else list(ids[place : place + self._most].tolist())
