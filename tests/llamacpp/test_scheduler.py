"""Many replies at once: whatever else goes on in a context, a reply is what it would be alone in a fresh one.

On the gpt-oss architecture, whose windowed layers forget what is behind the window: the greedy ids of a reply tell
whether they saw what they should have. Real llama.cpp; nothing is scripted here.
"""

from __future__ import annotations

import itertools
import logging
import random
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from harmony_plugin.api.request import ChatRequest
from harmony_plugin.core import Stream
from harmony_plugin.demo.model import build_model
from harmony_plugin.llamacpp import Defaults, HarmonyChatHandler
from harmony_plugin.llamacpp.engine import context_defaults
from harmony_plugin.llamacpp.generation import Generation
from harmony_plugin.llamacpp.handler import Model, Serving
from harmony_plugin.llamacpp.scheduler import Cancelled, Scheduler

from .conftest import USER, llama_cpp

GREEDY = Defaults(temperature=0.0, headers="free")


class Run:
    """One reply under way, or done."""

    def __init__(
        self, here: Here, prompt: Sequence[int], tokens: int = 12, processors: Any = (), **fields: Any
    ) -> None:
        model = here.model
        request = ChatRequest.read({"messages": [USER], "max_tokens": tokens, **fields}, here.defaults)
        stream = Stream(prompt=(), decode=model.vocabulary)
        self.prompt = list(prompt)
        self.left = False
        self.errors: list[BaseException | None] = []
        self.pieces: list[Any] = []
        self.generation = Generation(
            model.engine,
            self.prompt,
            request,
            stream,
            markers=model.dialect.ids,
            opening=model.opening,
            processors=processors,
            seed=fields.get("seed"),
            cancelled=lambda: self.left,
        )
        self.job = here.scheduler.add(self.generation, self.pieces.append, self.errors.append)

    @property
    def ids(self) -> list[int]:
        return [int(token) for token in self.generation.ids.view(len(self.prompt))]

    @property
    def cached(self) -> int:
        assert self.generation.cached_tokens is not None
        return self.generation.cached_tokens


class Here:
    """A model as the server has it."""

    def __init__(self, llama: Any, serving: Serving, defaults: Defaults = GREEDY) -> None:
        handler = HarmonyChatHandler()
        self.scheduler: Scheduler = handler.prepare(llama, serving)
        self.model = Model.of(llama, handler.prompts)
        self.defaults = defaults

    def finish(self, *runs: Run) -> None:
        while not all(run.errors for run in runs):
            assert self.scheduler.step()
        assert self.scheduler.idle
        for run in runs:
            assert run.errors == [None]


@contextmanager
def serving(n_ctx: int = 4096, *, swa_full: bool = False, **how: Any) -> Iterator[Here]:
    config = Serving(**{"parallel": 4, **how})
    with context_defaults(n_seq_max=config.sequences, kv_unified=True, swa_full=swa_full):
        llama = load(n_ctx)
    with closing(llama):
        here = Here(llama, config)
        yield here
        here.scheduler.close()


def load(n_ctx: int) -> Any:
    # Slices of 128: a prompt takes several. One thread: see conftest.
    return llama_cpp.Llama(
        str(build_model()), n_ctx=n_ctx, n_batch=128, n_ubatch=128, n_threads=1, n_threads_batch=1, verbose=False
    )


class Fresh:
    """What a reply is in a context in which nothing else ever was."""

    def __init__(self, llama: Any) -> None:
        self._llama = llama
        self._here = Here(llama, Serving())
        self._known: dict[tuple[int, ...], tuple[list[int], list[Any]]] = {}

    def __call__(self, prompt: Sequence[int], tokens: int = 12) -> list[int]:
        return self._made(prompt, tokens)[0]

    def same(self, run: Run, tokens: int = 12) -> bool:
        """Whether a greedy reply is right: at each id the likeliest one, or as likely as the arithmetic of another
        batch may make it. (Scores spread by 0.4; those behind something else differ by that.)"""
        expected, scores = self._made(run.prompt, tokens)
        for place, (ours, theirs) in enumerate(zip(run.ids, expected, strict=False)):
            if ours != theirs:
                return bool(scores[place][theirs] - scores[place][ours] < 0.01)
        return len(run.ids) == len(expected)

    def _made(self, prompt: Sequence[int], tokens: int) -> tuple[list[int], list[Any]]:
        key = (*prompt, tokens)
        if key not in self._known:
            scores: list[Any] = []

            def noted(ids: Any, row: Any) -> Any:
                scores.append(row.astype("float16"))
                return row

            self._llama.reset()
            run = Run(self._here, prompt, tokens, processors=[noted])
            self._here.finish(run)
            assert run.cached == 0
            self._known[key] = run.ids, scores
        return self._known[key]


@pytest.fixture(scope="module")
def fresh() -> Iterator[Fresh]:
    with closing(load(4096)) as llama:
        yield Fresh(llama)


@pytest.fixture(scope="module")
def here() -> Iterator[Here]:
    with serving() as found:
        yield found


def words(count: int, seed: int) -> list[int]:
    numbers = random.Random(seed)
    return [numbers.randrange(1_000, 150_000) for _ in range(count)]


def test_the_model_has_a_window(here: Here) -> None:
    assert here.model.engine.window == 128
    assert here.model.engine.sequences == 10


def test_replies_at_once_are_those_alone(here: Here, fresh: Fresh) -> None:
    runs = [Run(here, words(count, count)) for count in (5, 300, 127, 641, 129, 40)]
    here.finish(*runs)
    for run in runs:
        assert fresh.same(run)


def test_the_same_seed_gives_the_same_ids() -> None:
    """Alone. Beside others the arithmetic is another, in the last digits."""

    def ids(seed: int) -> list[int]:
        with serving(512) as here:
            run = Run(here, words(50, 1), 20, temperature=1.0, seed=seed)
            here.finish(run)
            return run.ids

    assert ids(7) == ids(7) != ids(8)


@pytest.mark.parametrize("swa_full", [False, True])
@pytest.mark.parametrize("parallel", [1, 4])
def test_turns_edits_and_conversations_side_by_side(fresh: Fresh, parallel: int, swa_full: bool) -> None:
    """Whatever was in the context before, and however it was gone on from."""
    numbers = random.Random(parallel)
    with serving(parallel=parallel, swa_full=swa_full) as here:
        system = words(200, 99)
        conversations = [[*system, *words(150, seed)] for seed in range(5)]
        reused = 0
        for _ in range(12):
            runs = []
            for number in numbers.sample(range(5), parallel):
                prompt = conversations[number]
                match numbers.randrange(4):
                    case 0:  # an edit, somewhere
                        at = numbers.randrange(len(system), len(prompt))
                        prompt = [*prompt[:at], *words(numbers.randrange(1, 200), numbers.random())]  # type: ignore[arg-type]
                    case 1:  # once more
                        pass
                    case 2:  # the next turn, without what was written
                        prompt = [*prompt, *words(numbers.randrange(1, 150), numbers.random())]  # type: ignore[arg-type]
                    case 3:  # with it
                        prompt = [*prompt, *fresh(prompt), *words(numbers.randrange(1, 60), numbers.random())]  # type: ignore[arg-type]
                if len(prompt) > 1_500:
                    prompt = prompt[:300]
                conversations[number] = prompt
                runs.append(Run(here, prompt))
            here.finish(*runs)
            for run in runs:
                assert fresh.same(run)
                reused += run.cached
        assert reused > 12 * parallel * 100, "nothing was reused"


def test_n_replies_to_one_prompt_evaluate_it_once(here: Here, fresh: Fresh) -> None:
    prompt = words(400, 1_005)
    before = here.scheduler.counters.evaluated
    runs = [Run(here, prompt) for _ in range(4)]
    here.finish(*runs)
    assert all(map(fresh.same, runs))
    generated = sum(len(run.ids) for run in runs)
    # Each copy has the last id evaluated again, for its scores; a reply's own last id never is.
    assert here.scheduler.counters.evaluated - before == len(prompt) + 3 + generated - 4


def test_the_next_turn_evaluates_what_is_new(here: Here, fresh: Fresh) -> None:
    """The reply before is left out of it, as reasoning is: the windowed layers had forgotten what is needed here."""
    prompt = words(500, 6)
    first = Run(here, prompt, 200)
    here.finish(first)
    second = Run(here, [*prompt, *words(30, 7)])
    here.finish(second)
    assert second.cached == len(prompt)
    assert fresh.same(second)


def test_a_conversation_is_warm_after_others_talked(here: Here) -> None:
    conversations = [words(400, 10 + number) for number in range(3)]
    here.finish(*(Run(here, prompt) for prompt in conversations))
    for _ in range(2):
        for number, prompt in enumerate(conversations):
            conversations[number] = [*prompt, *words(20, len(prompt) + number)]
            run = Run(here, conversations[number])
            here.finish(run)
            assert run.cached == len(prompt)


def test_what_conversations_have_in_common_is_copied(here: Here, fresh: Fresh) -> None:
    system = words(300, 20)
    here.finish(Run(here, [*system, *words(200, 21)]))
    second, third = [*system, *words(200, 22)], [*system, *words(200, 23)]
    parted = Run(here, second)  # evaluated from the start, and what it has in common is remembered
    here.finish(parted)
    copied = Run(here, third)
    here.finish(copied)
    assert copied.cached == len(system)
    assert fresh.same(parted)
    assert fresh.same(copied)


def test_a_new_session_finds_the_tools_of_a_long_loop(fresh: Fresh) -> None:
    """Each turn of an agent's loop leaves a checkpoint; where its tools end, and other sessions go on, stays one."""
    with serving(8192) as here:
        opening = words(60, 90)
        here.finish(Run(here, [*opening, *words(300, 91)]))  # somebody else, who has little in common with it
        tools = [*opening, *words(600, 92)]
        for seed in (93, 94):
            loop = [*tools, *words(100, seed)]
            for turn in range(6):
                here.finish(Run(here, loop))
                loop += words(300, 1_000 + 10 * seed + turn)  # more than the windowed layers remember
        session = Run(here, [*tools, *words(100, 95)])
        here.finish(session)
        assert session.cached == len(tools)
        assert fresh.same(session)


def test_who_comes_while_the_common_part_is_read_waits_for_it(here: Here, fresh: Fresh) -> None:
    system = words(600, 30)
    runs = [Run(here, [*system, *words(50, 31 + number)]) for number in range(4)]
    before = here.scheduler.counters.evaluated
    here.finish(*runs)
    assert [run.cached for run in runs] == [0, 600, 600, 600]
    assert here.scheduler.counters.evaluated - before < 600 + 4 * (50 + 12)
    assert all(map(fresh.same, runs))


def test_a_long_prompt_holds_nobody_up(here: Here) -> None:
    running = Run(here, words(20, 40), 60)
    while not running.ids:
        here.scheduler.step()
    long = Run(here, words(2_000, 41), 2)
    steps = 0
    while not long.ids:
        before = len(running.ids)
        here.scheduler.step()
        steps += 1
        assert len(running.ids) > before or running.errors, "a step without its next id"
    assert steps >= 2_000 // 128
    here.finish(running, long)


def test_a_reply_that_is_left_disturbs_nobody(here: Here, fresh: Fresh) -> None:
    runs = [Run(here, words(100 + number, 50 + number), 30) for number in range(6)]
    for _ in range(8):
        here.scheduler.step()
    for run in (runs[1], runs[5]):  # one that runs, one that waits
        run.left = True
    here.scheduler.step()
    assert all(isinstance(run.errors[0], Cancelled) for run in (runs[1], runs[5]))
    kept = [run for number, run in enumerate(runs) if number not in (1, 5)]
    here.finish(*kept)
    assert all(fresh.same(run, 30) for run in kept)


def test_an_error_of_one_reply_stays_with_it(here: Here, fresh: Fresh) -> None:
    def broken(ids: Any, scores: Any) -> Any:
        if len(ids) > 105:
            raise LookupError("broken")
        return scores

    wrong, right = Run(here, words(103, 60), processors=[broken]), Run(here, words(104, 61))
    while not right.errors:
        here.scheduler.step()
    assert isinstance(wrong.errors[0], LookupError)
    assert fresh.same(right)


def test_replies_that_do_not_fit_together_come_one_after_the_other(
    fresh: Fresh, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(1024) as here:
        room = here.model.engine.context_size
        runs = [Run(here, words(room // 2 - 40, 70 + number), 200) for number in range(3)]
        with caplog.at_level(logging.INFO):
            here.finish(*runs)
        assert all(fresh.same(run, 200) for run in runs)
        assert any(len(run.ids) > 80 for run in runs), "they did fit"


def test_a_reply_ends_where_the_context_does(here: Here) -> None:
    with serving(256) as small:
        room = small.model.engine.context_size
        run = Run(small, words(room - 10, 80), 1_000)
        small.finish(run)
        assert len(run.ids) <= 10
        assert run.generation.cut is (len(run.ids) == 10)


def test_what_is_pushed_out_comes_back_from_main_memory(fresh: Fresh) -> None:
    with serving(1024, parallel=1, cache_ram=1 << 28) as here:
        prompts = [words(600, 90 + number) for number in range(3)]
        for prompt in prompts:
            here.finish(Run(here, prompt))
        assert here.scheduler.memory.evictions
        for prompt in prompts:
            run = Run(here, [*prompt, *words(20, 3)])
            here.finish(run)
            assert run.cached == len(prompt)
            assert fresh.same(run)


def test_main_memory_is_not_used_beyond_its_bound() -> None:
    with serving(1024, parallel=1, cache_ram=1) as here:
        prompts = [words(600, 90 + number) for number in range(2)]
        here.finish(*(Run(here, prompt) for prompt in prompts))
        assert here.scheduler.memory.parked_bytes == 0
        run = Run(here, prompts[0])
        here.finish(run)
        assert run.cached == 0


@pytest.mark.parametrize("ram", [0, 1, 1 << 28])
def test_what_lies_idle_makes_way_where_main_memory_keeps_it(fresh: Fresh, ram: int) -> None:
    with serving(parallel=1, cache_ram=ram) as here:
        prompts = [words(1_200, 130 + number) for number in range(3)]
        for prompt in prompts:
            here.finish(Run(here, prompt))
        memory = here.scheduler.memory
        assert bool(memory.evictions) is (ram > 1), "it stays where it would be lost"
        assert bool(memory.parked_bytes) is (ram > 1)
        for prompt in prompts:
            run = Run(here, [*prompt, *words(20, 3)])
            here.finish(run)
            assert run.cached == len(prompt)
            assert fresh.same(run)


def test_prompts_on_disk_survive_a_restart(tmp_path: Path, fresh: Fresh, caplog: pytest.LogCaptureFixture) -> None:
    disk = {"cache_disk": 1 << 28, "cache_folder": tmp_path}
    prompt = words(300, 100)
    with serving(1024, parallel=1, **disk) as here:
        here.finish(Run(here, prompt))
    (file,) = tmp_path.iterdir()
    with serving(1024, parallel=1, **disk) as here:
        run = Run(here, [*prompt, *words(20, 3)])
        here.finish(run)
        assert run.cached == len(prompt)
        assert fresh.same(run)

    for damage in (b"", b"x" * 100, file.read_bytes()[:-5]):
        for one in tmp_path.iterdir():
            one.unlink()
        file.write_bytes(damage)
        caplog.clear()
        with serving(1024, parallel=1, **disk) as here:
            run = Run(here, prompt)
            here.finish(run)
            assert run.cached == 0
            assert fresh.same(run)
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "is ignored" in caplog.text


def test_another_models_prompts_are_left_alone(tmp_path: Path) -> None:
    disk = {"cache_disk": 1 << 28, "cache_folder": tmp_path}
    prompt = words(300, 100)
    with serving(1024, parallel=1, **disk) as here:
        here.finish(Run(here, prompt))
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes().replace(build_model().name.encode(), b"x" * len(build_model().name)))
    with serving(1024, parallel=1, **disk) as here:
        run = Run(here, prompt)
        here.finish(run)
        assert run.cached == 0
    assert file.exists()


class Repeat:
    """Makes a phrase come again and again."""

    def __init__(self, phrase: Sequence[int], begin: int) -> None:
        self.phrase, self.begin = phrase, begin

    def __call__(self, ids: Any, scores: Any) -> Any:
        scores[self.phrase[(len(ids) - self.begin) % len(self.phrase)]] += 100
        return scores


def test_guesses_change_nothing_but_the_number_of_steps(fresh: Fresh) -> None:
    prompt, phrase = words(200, 111), words(9, 110)
    steps: dict[int, int] = {}
    for drafts in (0, 8):
        with serving(parallel=2, drafts=drafts) as here:
            counters = here.scheduler.counters
            run = Run(here, prompt, 90, processors=[Repeat(phrase, len(prompt))])
            here.finish(run)
            assert run.ids == phrase * 10
            steps[drafts] = counters.steps
            assert (counters.accepted > 50) is bool(drafts)
            assert counters.accepted <= counters.drafted
            # What was guessed wrong is not in the context.
            after = Run(here, [*prompt, *run.ids, *words(150, 1)])
            here.finish(after)
            assert after.cached >= len(prompt) + len(run.ids) - 1
            assert fresh.same(after)
            free = Run(here, [*phrase, *words(20, 2), *phrase, *words(20, 2)], 40)
            here.finish(free)
            assert fresh.same(free, 40)
    assert steps[8] < steps[0] / 2


def test_the_bindings_own_calls_and_ours_can_alternate(fresh: Fresh) -> None:
    for parallel in (1, 2):
        with serving(parallel=parallel) as here:
            llama = here.model.engine.llama
            for number in range(2):
                run = Run(here, words(200, 120))
                here.finish(run)
                assert fresh.same(run)
                here.scheduler.vacate()
                llama.reset()
                assert len(list(itertools.islice(llama.generate(words(50 + number, 121), temp=0.0), 3))) == 3
