"""Everything that touches llama-cpp-python beyond calling it as its documentation says.

Checked against llama-cpp-python 0.3.36. Names are looked for, not versions: one that is gone gives one clear error.
Knows nothing of Harmony.
"""

from __future__ import annotations

import ctypes
import inspect
import random
import weakref
from collections.abc import Callable, Generator, Sequence
from typing import Any

try:
    import llama_cpp
except ImportError as error:
    raise ImportError(
        "harmony_plugin.llamacpp needs llama-cpp-python: pip install 'harmony-plugin[llamacpp]'"
    ) from error

__all__ = ["CHECKED", "Engine", "Processor", "Processors", "register", "stock_defaults"]

CHECKED = "0.3.36"

Processor = Callable[[Any, Any], Any]
"""`(input_ids, scores) -> scores`: numpy arrays of the ids so far and of one score for each id there is."""


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
    """

    def __init__(self, processors: Sequence[Processor]) -> None:
        super().__init__([self._run])
        self.error: BaseException | None = None
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

        :raises KeyError: for an id outside the vocabulary.
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
        return _checked(tokens, processors)

    def restore(self, ids: Sequence[int]) -> None:
        """Take over the state that the `Llama`'s cache holds (`Llama.set_cache`), if it fits `ids` better."""
        llama = self.llama
        if not llama.cache:
            return
        try:
            state = llama.cache[ids]
        except KeyError:
            return
        longest = llama_cpp.Llama.longest_token_prefix
        if longest(state.input_ids.tolist(), ids) > longest(llama.input_ids[: llama.n_tokens].tolist(), ids):
            llama.load_state(state)

    def save(self, ids: Sequence[int]) -> None:
        """Put the state into the `Llama`'s cache, if it has one."""
        if self.llama.cache:
            self.llama.cache[ids] = self.llama.save_state()


def _checked(tokens: Generator[int, None, None], processors: Processors) -> Generator[int, None, None]:
    try:
        for token in tokens:
            if processors.error is not None:
                raise processors.error
            yield token
    finally:
        tokens.close()
