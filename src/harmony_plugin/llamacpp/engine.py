"""Everything that touches llama-cpp-python beyond calling it as its documentation says.

Checked against llama-cpp-python 0.3.36. Names are looked for, not versions: one that is gone gives one clear error.
Knows nothing of Harmony.
"""

from __future__ import annotations

import contextlib
import ctypes
import inspect
import random
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

try:
    import llama_cpp
except ImportError as error:
    raise ImportError(
        "harmony_plugin.llamacpp needs llama-cpp-python: pip install 'harmony-plugin[llamacpp]'"
    ) from error

__all__ = [
    "CHECKED",
    "Engine",
    "Masking",
    "Only",
    "Processor",
    "Processors",
    "Without",
    "register",
    "stock_defaults",
]

CHECKED = "0.3.36"

Processor = Callable[[Any, Any], Any]
"""`(input_ids, scores) -> scores`: numpy arrays of the ids so far and of one score for each id there is."""


class Only(NamedTuple):
    """Nothing but these ids may come next: a list or an array, in order, never empty."""

    ids: Any


class Without(NamedTuple):
    """Anything but these ids may come next: a list or an array."""

    ids: Any


class Masking(Protocol):
    """A processor that only ever forbids ids, and can say which.

    Attributes:
        standing: what is forbidden until further notice, the same object as long as it holds; None: ask `mask` for each
            id.
    """

    standing: Without | None

    def mask(self) -> Only | Without | None:
        """What may come next; None: anything."""


def _need(owner: Any, name: str) -> Any:
    try:
        return getattr(owner, name)
    except AttributeError:
        version = getattr(llama_cpp, "__version__", "of unknown version")
        what = getattr(owner, "__name__", type(owner).__name__)
        raise RuntimeError(
            f"llama-cpp-python {version} has no {what}.{name}; harmony-plugin is known to work with {CHECKED}"
        ) from None


def register(name: str, handler: Any) -> None:
    """Make `handler` the one for `Llama(chat_format=name)`, once or again."""
    registry = _need(llama_cpp.llama_chat_format, "LlamaChatCompletionHandlerRegistry")()
    registry.register_chat_completion_handler(name, handler, overwrite=True)


def stock_defaults() -> dict[str, Any]:
    """What `Llama.create_chat_completion` passes for parameters that its caller left out."""
    parameters = inspect.signature(llama_cpp.Llama.create_chat_completion).parameters
    return {n: p.default for n, p in parameters.items() if n not in ("self", "messages")}


class Processors(llama_cpp.LogitsProcessorList):
    """Logits processors as one, in order.

    llama-cpp-python copies all scores for each processor that it finds, so it finds one; and it swallows what a
    processor raises, so that is kept here, for `Engine.generate`.

    Args:
        masking: the processor, where there is one only and it is of that kind: it may then be asked for its mask
            instead of being called.
    """

    def __init__(self, processors: Sequence[Processor], masking: Masking | None = None) -> None:
        super().__init__([self._run])
        self.error: BaseException | None = None
        self.masking = masking
        self._processors = processors

    def _run(self, input_ids: Any, scores: Any) -> Any:
        try:
            for processor in self._processors:
                result = processor(input_ids, scores)
                if result is not scores:
                    scores[:] = result
        except BaseException as error:
            self.error = error
        return scores


class Shortcut:
    """A mask put to llama.cpp's candidates directly, in the place of the sampler through which llama-cpp-python calls
    logits processors: that builds arrays around all scores for every id, and the samplers behind it then go through
    the whole vocabulary even if one id is left.

    What stands until further notice is put to the candidates by a sampler of llama.cpp's own, and no Python runs.

    Raises:
        AttributeError, TypeError, ValueError: this llama-cpp-python's samplers are made in another way.
    """

    def __init__(self, llama: Any, processors: Processors, masking: Masking, vocabulary_size: int) -> None:
        ((_, custom),) = llama._sampler.custom_samplers
        sampler = custom.sampler
        if not isinstance(sampler, llama_cpp.llama_sampler):
            raise TypeError(f"a {type(sampler).__name__} is no llama_sampler")
        self._init, self._free = llama_cpp.llama_sampler_init_logit_bias, llama_cpp.llama_sampler_free
        self._bias_p = ctypes.POINTER(llama_cpp.llama_logit_bias)
        self._processors = processors
        self._masking = masking
        self._size = vocabulary_size
        self._custom, self._apply_func = custom, custom.apply_func
        # The chain holds the address of this structure, which is the binding's: what it says is what is run.
        self._place, self._called = ctypes.addressof(sampler), bytes(sampler)
        self._standing: Without | None = None
        self._native: dict[int, tuple[Without, Any]] = {}
        self._address = 0
        self._candidates: Any = None
        custom.apply_func = self._apply

    def update(self) -> None:
        """Take over what stands now."""
        standing = self._masking.standing
        if standing is self._standing:
            return
        self._standing = standing
        source = self._called if standing is None else self._sampler(standing)
        ctypes.memmove(self._place, source, len(self._called))

    def close(self) -> None:
        """Put everything back."""
        ctypes.memmove(self._place, self._called, len(self._called))
        self._custom.apply_func = self._apply_func
        self._candidates = None
        while self._native:
            _, (_, sampler) = self._native.popitem()
            self._free(sampler)

    def _sampler(self, mask: Without) -> Any:
        import numpy as np

        # By identity: the masks are held here, so none can take another's place.
        known = self._native.get(id(mask))
        if known is None:
            biases = np.empty(len(mask.ids), dtype=[("token", np.int32), ("bias", np.float32)])
            biases["token"], biases["bias"] = mask.ids, -np.inf
            sampler = self._init(self._size, len(biases), biases.ctypes.data_as(self._bias_p))
            known = self._native[id(mask)] = mask, sampler
        return known[1]

    def _apply(self, candidates: Any) -> None:
        """Called by llama.cpp with its candidates: each id at its own place, nothing sorted yet."""
        try:
            mask = self._masking.mask()
            if mask is None:
                return
            array = candidates.contents
            rows = self._rows(array)
            if isinstance(mask, Only):
                rows[: len(mask.ids)] = rows[mask.ids]
                array.size = len(mask.ids)
            else:
                rows["logit"][mask.ids] = float("-inf")
        except BaseException as error:
            self._processors.error = error

    def _rows(self, array: Any) -> Any:
        import numpy as np

        address = ctypes.addressof(array.data.contents)
        if address != self._address or len(self._candidates) != array.size:
            rows = (llama_cpp.llama_token_data * array.size).from_address(address)
            self._address, self._candidates = address, np.ctypeslib.as_array(rows)
        return self._candidates


class Engine:
    """One `Llama`: its vocabulary, its counters and its decode loop.

    Not for use by two threads at once, as `Llama` itself.
    """

    def __init__(self, llama: Any) -> None:
        # Not held: what is known of a model is kept by its `Llama`, and must not keep it in memory.
        self.llama = weakref.proxy(llama)
        self.name = str(llama.model_path)
        self.vocabulary = _need(_need(llama, "_model"), "vocab")
        self.context_size: int = llama.n_ctx()
        self.vocabulary_size: int = llama.n_vocab()
        self.eos: int = llama.token_eos()
        # What was put into the `Llama`'s cache: the ids, and how many of them were the prompt.
        self._saved: dict[tuple[int, ...], int] = {}
        self._prompt = 0
        self._pieces: dict[int, bytes] = {}
        self._ends: dict[int, bool] = {}
        self._buffer = ctypes.create_string_buffer(1 << 14)
        self._to_piece = _need(llama_cpp, "llama_token_to_piece")
        self._is_eog = _need(llama_cpp, "llama_vocab_is_eog")
        self._perf = _need(llama_cpp, "llama_perf_context")
        seed = _need(llama, "_seed")
        # A model loaded with a seed of its own repeats its replies; without one they differ.
        fixed = seed != llama_cpp.LLAMA_DEFAULT_SEED
        self._seeds = random.Random(seed) if fixed else random.Random()

    def lookup(self, text: str) -> int | None:
        """The id of a special token by its text; None where the vocabulary has none."""
        ids = self.llama.tokenize(text.encode(), add_bos=False, special=True)
        return ids[0] if len(ids) == 1 else None

    def piece(self, token: int) -> bytes:
        """The bytes of one id, special tokens spelled out.

        Raises:
            KeyError: for an id outside the vocabulary.
        """
        known = self._pieces.get(token)
        if known is None:
            if not 0 <= token < self.vocabulary_size:
                raise KeyError(token)
            size = self._to_piece(self.vocabulary, token, self._buffer, len(self._buffer), 0, True)
            if size < 0:
                raise KeyError(token)
            known = self._pieces[token] = ctypes.string_at(self._buffer, size)
        return known

    def ends(self, token: int) -> bool:
        """Whether the model's vocabulary says that generation ends with this id."""
        known = self._ends.get(token)
        if known is None:
            known = self._ends[token] = bool(self._is_eog(self.vocabulary, token))
        return known

    def seed(self, seed: int | None) -> None:
        """Set the seed of the next `generate`; None: a new one."""
        value = self._seeds.getrandbits(32) if seed is None else seed & 0xFFFFFFFF
        self.llama.set_seed(value)

    def evaluated(self) -> int:
        """How many ids llama.cpp has put through this model, ever; differences of this tell what was not reused."""
        counters = self._perf(self.llama.ctx)
        # Both read 1 where they are 0. A prompt's counter never is 1: single ids are counted by the other.
        prompts = 0 if counters.n_p_eval == 1 else counters.n_p_eval
        return int(prompts + counters.n_eval)

    def generate(
        self, ids: Sequence[int], sampling: dict[str, Any], processors: Processors | None
    ) -> Generator[int, None, None]:
        """`Llama.generate`, with the errors of processors raised where they belong."""
        tokens = self.llama.generate(ids, logits_processor=processors, **sampling)
        if processors is None:
            return tokens  # type: ignore[no-any-return]
        return self._checked(tokens, processors)

    def restore(self, ids: Sequence[int]) -> None:
        """Take over the state that the `Llama`'s cache holds (`Llama.set_cache`), if it fits `ids` better."""
        llama = self.llama
        if not llama.cache:
            return
        self._prompt = len(ids)
        try:
            state = llama.cache[ids]
        except KeyError:
            return
        longest = llama_cpp.Llama.longest_token_prefix
        if longest(state.input_ids.tolist(), ids) > longest(llama.input_ids[: llama.n_tokens].tolist(), ids):
            with self._few_scores() if len(state.scores) < 2 else contextlib.nullcontext():
                llama.load_state(state)

    def save(self, ids: Sequence[int]) -> None:
        """Put the state into the `Llama`'s cache, if it has one, in the place of what it goes on from."""
        cache = self.llama.cache
        if not cache:
            return
        states = getattr(cache, "cache_state", None)
        if states is not None:
            # Else a conversation's own older turns would push the others out.
            longest, key = llama_cpp.Llama.longest_token_prefix, tuple(ids)
            for old in [old for old, prompt in self._saved.items() if longest(old, key) >= prompt]:
                states.pop(old, None)
            self._saved = {old: prompt for old, prompt in self._saved.items() if old in states}
            self._saved[key] = self._prompt
        with self._few_scores():
            cache[ids] = self.llama.save_state()

    @contextlib.contextmanager
    def _few_scores(self) -> Iterator[None]:
        """`Llama`'s states hold its scores, 412 MB with this vocabulary that the cache does not count, and nothing here
        reads them: what is restored is evaluated before it is sampled. One row is left, so that states can go to and
        from llama-cpp-python's own completions."""
        llama: Any = self.llama
        scores = llama.scores
        llama.scores = scores[:1]
        try:
            yield
        finally:
            llama.scores = scores

    def _checked(self, tokens: Generator[int, None, None], processors: Processors) -> Generator[int, None, None]:
        shortcut: Shortcut | None = None
        masking = processors.masking
        try:
            for token in tokens:
                if processors.error is not None:
                    raise processors.error
                yield token
                if masking is not None:
                    if shortcut is None:
                        # The first id went the long way: the sampler is made when it is wanted.
                        try:
                            shortcut = Shortcut(self.llama, processors, masking, self.vocabulary_size)
                        except (AttributeError, TypeError, ValueError):
                            masking = None
                            continue
                    shortcut.update()
        finally:
            if shortcut is not None:
                shortcut.close()
            tokens.close()
