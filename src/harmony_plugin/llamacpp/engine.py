"""Everything that touches llama-cpp-python beyond calling it as its documentation says.

Checked against llama-cpp-python 0.3.36. Names are looked for, not versions: one that is gone gives one clear error.
Knows nothing of Harmony, nor of whose ids it evaluates.
"""

from __future__ import annotations

import contextlib
import ctypes
import inspect
import os
import random
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

try:
    import llama_cpp
except ImportError as error:
    raise ImportError(
        "harmony_plugin.llamacpp needs llama-cpp-python: pip install 'harmony-plugin[llamacpp]'"
    ) from error

__all__ = [
    "CHECKED",
    "Abort",
    "DecodeError",
    "Engine",
    "NoRoom",
    "Only",
    "Processor",
    "Without",
    "context_defaults",
    "model_defaults",
    "register",
    "stock_defaults",
    "token_piece",
]

CHECKED = "0.3.36"

Processor = Callable[[Any, Any], Any]
"""`(input_ids, scores) -> scores`: numpy arrays of the ids so far and of one score for each id there is."""

INTERRUPTIBLE = 32
"""Ids in a batch from which on llama.cpp is asked to look whether it should stop: that costs something for each of the
model's operations, and a smaller batch is over soon."""


class Only(NamedTuple):
    """Nothing but these ids may come next: a list or an array, in order, never empty."""

    ids: Any


class Without(NamedTuple):
    """Anything but these ids may come next: a list or an array."""

    ids: Any


class NoRoom(Exception):
    """The context's memory has no room for what was to be evaluated; it is as it was before."""


class DecodeError(RuntimeError):
    """llama.cpp failed to evaluate a batch, or was told to stop. What is in memory of the batch's sequences behind
    their earlier ids is not known."""


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


def context_defaults(**fields: Any) -> contextlib.AbstractContextManager[None]:
    """Contexts that this thread makes meanwhile begin with these parameters, which `Llama` has no arguments for.

    Raises:
        RuntimeError: there is no parameter of a name.
    """
    return _defaults("llama_context_default_params", fields)


def model_defaults(**fields: Any) -> contextlib.AbstractContextManager[None]:
    """As `context_defaults`, for models that are loaded."""
    return _defaults("llama_model_default_params", fields)


@contextlib.contextmanager
def _defaults(name: str, fields: Mapping[str, Any]) -> Iterator[None]:
    low = llama_cpp.llama_cpp
    defaults, thread = _need(low, name), threading.get_ident()
    for field in fields:
        _need(defaults(), field)

    def changed() -> Any:
        params = defaults()
        if threading.get_ident() == thread:
            for field, value in fields.items():
                setattr(params, field, value)
        return params

    setattr(low, name, changed)
    try:
        yield
    finally:
        setattr(low, name, defaults)


def token_piece(vocabulary: Any, token: int) -> bytes:
    """The bytes of an id, special tokens spelled out. For ids that the vocabulary has: llama.cpp ends the process for
    others."""
    to_piece, size = _need(llama_cpp.llama_cpp, "llama_token_to_piece"), 256
    while True:
        buffer = ctypes.create_string_buffer(size)
        written = to_piece(vocabulary, token, buffer, size, 0, True)
        if written >= 0:
            return buffer.raw[:written]
        size = -written


class Abort:
    """Has llama.cpp ask `check` while it computes in `context`, as long as that is on; true makes the running
    `llama_decode` fail with status 2. This ends even a long prompt at once. Backends other than the CPU ask less often
    or never; versions without such a callback never do. To be kept as long as the context: C has the address alone."""

    def __init__(self, context: Any, check: Callable[[], bool]) -> None:
        low = llama_cpp.llama_cpp
        make, install = (getattr(low, name, None) for name in ("ggml_abort_callback", "llama_set_abort_callback"))
        self._callbacks = None if make is None or install is None else (make(), make(lambda _data: check()))
        self._install: Any = install
        self._context = context
        self._on = False

    def set(self, on: bool) -> None:
        """Begin to ask, or end it."""
        if self._callbacks is not None and on != self._on:
            self._install(self._context, self._callbacks[on], None)
            self._on = on


class Engine:
    """One `Llama`: its vocabulary, and its context as llama.cpp has it: sequences of ids that are evaluated together.

    Evaluating is not for two threads at once, as `Llama` itself; the vocabulary is for any.

    Attributes:
        sequences: how many the context's memory can tell apart.
        window: ids back that the windowed layers see; 0: no layer has a window.
        roomy: whether those have as much room as the others (`swa_full`).
        batch_size: most ids of one batch.
    """

    def __init__(self, llama: Any) -> None:
        # Not held: what is known of a model is kept by its `Llama`, and must not keep it in memory.
        self.llama: Any = weakref.proxy(llama)
        self.name = str(llama.model_path)
        self.vocabulary = _need(_need(llama, "_model"), "vocab")
        self.context_size: int = llama.n_ctx()
        self.vocabulary_size: int = llama.n_vocab()
        self.eos: int = llama.token_eos()
        self._pieces: dict[int, bytes] = {}
        self._ends: dict[int, bool] = {}
        low = llama_cpp.llama_cpp
        self._is_eog = _need(low, "llama_vocab_is_eog")
        seed = _need(llama, "_seed")
        # A model loaded with a seed of its own repeats its replies; without one they differ.
        fixed = seed != low.LLAMA_DEFAULT_SEED
        self._seeds = random.Random(seed) if fixed else random.Random()

        self._context = _need(_need(llama, "_ctx"), "ctx")
        self._memory = _need(low, "llama_get_memory")(self._context)
        self.sequences = int(_need(low, "llama_n_seq_max")(self._context))
        self.batch_size = int(_need(low, "llama_n_batch")(self._context))
        # A cache of full size for the windowed layers has room for everything, and yet writes over what is behind the
        # window when its turn comes: it is no promise.
        self.window = int(_need(low, "llama_model_n_swa")(_need(llama._model, "model")))
        self.roomy = bool(_need(_need(llama, "context_params"), "swa_full"))
        self._decode, self._get_logits = _need(low, "llama_decode"), _need(low, "llama_get_logits")
        self._seq_rm, self._seq_cp = _need(low, "llama_memory_seq_rm"), _need(low, "llama_memory_seq_cp")
        self._pos_min = _need(low, "llama_memory_seq_pos_min")
        self._state_size = _need(low, "llama_state_seq_get_size_ext")
        self._get_state, self._set_state = (_need(low, f"llama_state_seq_{way}_data_ext") for way in ("get", "set"))
        self._windowed_only = _need(low, "LLAMA_STATE_SEQ_FLAGS_SWA_ONLY")
        self._batch = _Batch(self.batch_size)
        self._rows: Any = None
        self._rows_at: tuple[int, int] = (0, 0)
        self._left: list[int] | None = []
        # What was put into the `Llama`'s cache: the ids, and how many of them were the prompt.
        self._saved: dict[tuple[int, ...], int] = {}
        self._prompt = 0
        self.stop: Callable[[], bool] | None = None
        """Asked while a longer batch is evaluated, see `Abort`; true ends it with a `DecodeError`."""
        engine = weakref.ref(self)

        def stopped() -> bool:
            this = engine()
            return this is not None and this.stop is not None and this.stop()

        self._abort = Abort(self._context, stopped)

    def fingerprint(self) -> dict[str, object]:
        """What must be the same for a state to be of use."""
        low, llama = llama_cpp.llama_cpp, self.llama
        file = os.stat(self.name)
        return {
            "model": [os.path.basename(self.name), file.st_size, file.st_mtime_ns],
            "lora": [llama.lora_path, llama.lora_scale],
            "cache": [llama.context_params.type_k, llama.context_params.type_v, llama.context_params.flash_attn_type],
            "rope": [llama.context_params.rope_freq_base, llama.context_params.rope_freq_scale],
            "library": [llama_cpp.__version__, low.LLAMA_STATE_SEQ_VERSION],
        }

    # The vocabulary

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
            known = self._pieces[token] = token_piece(self.vocabulary, token)
        return known

    def ends(self, token: int) -> bool:
        """Whether the model's vocabulary says that generation ends with this id."""
        known = self._ends.get(token)
        if known is None:
            known = self._ends[token] = bool(self._is_eog(self.vocabulary, token))
        return known

    def seed(self, seed: int | None) -> int:
        """`seed` as 32 bits; None: a new one."""
        return self._seeds.getrandbits(32) if seed is None else seed & 0xFFFFFFFF

    # Evaluating

    def add(self, sequence: int, ids: Any, position: int, rows: int) -> int:
        """Put ids into the next batch.

        Args:
            ids: a list or an array.
            position: of the first of them in their sequence.
            rows: how many of the last ids' scores are wanted.

        Returns:
            the number of the first of those rows.
        """
        return self._batch.add(sequence, ids, position, rows)

    @property
    def batched(self) -> int:
        """Ids in the next batch."""
        return self._batch.count

    def decode(self) -> Any:
        """Evaluate the batch, and begin a new one.

        Returns:
            the scores that were wanted: float32, a row each, as wide as the vocabulary; they may be written to, and are
            gone with the next call.

        Raises:
            NoRoom: nothing was evaluated.
            DecodeError: it failed, or was stopped.
        """
        batch = self._batch
        self._abort.set(self.stop is not None and batch.count >= INTERRUPTIBLE)
        status = self._decode(self._context, batch.filled())
        rows = batch.rows
        batch.clear()
        if status == 1:
            raise NoRoom
        if status != 0:
            raise DecodeError("stopped" if status == 2 else f"llama_decode returned {status}")
        return self._scores(rows) if rows else None

    def _scores(self, rows: int) -> Any:
        import numpy as np

        address = ctypes.addressof(self._get_logits(self._context).contents)
        if (address, rows) != self._rows_at:
            memory = (ctypes.c_float * (rows * self.vocabulary_size)).from_address(address)
            self._rows = np.ctypeslib.as_array(memory).reshape(rows, self.vocabulary_size)
            self._rows_at = address, rows
        return self._rows

    # What is in memory

    def cut(self, sequence: int, length: int) -> None:
        """Keep the first `length` ids of a sequence."""
        self._seq_rm(self._memory, sequence, length, -1)

    def copy(self, source: int, target: int, length: int) -> None:
        """Let `target`, an empty sequence, begin with the first `length` ids of `source`; they share the memory."""
        self._seq_cp(self._memory, source, target, 0, length)

    def goes_on_at(self, sequence: int, length: int) -> bool:
        """Whether a sequence can go on behind its first `length` ids: whether the windowed layers still have what is in
        front of that."""
        return not self.window or self._pos_min(self._memory, sequence) <= max(0, length - self.window + 1)

    def state_size(self, sequence: int, *, windowed_only: bool = False) -> int:
        """How many bytes `state` gives."""
        return int(self._state_size(self._context, sequence, self._windowed_only if windowed_only else 0))

    def state(self, sequence: int, *, windowed_only: bool = False) -> bytes:
        """A sequence's memory as bytes.

        Args:
            windowed_only: of the layers with a window only, which is what those need to go on here.
        """
        flags = self._windowed_only if windowed_only else 0
        size = self.state_size(sequence, windowed_only=windowed_only)
        buffer = (ctypes.c_uint8 * size)()
        written = self._get_state(self._context, buffer, size, sequence, flags)
        return ctypes.string_at(buffer, written)

    def restore(self, sequence: int, state: bytes, *, windowed_only: bool = False) -> bool:
        """Put `state` into a sequence, in the place of what it had there; False: there is no room, or it is not this
        model's, and the sequence is empty."""
        flags = self._windowed_only if windowed_only else 0
        place = ctypes.cast(ctypes.c_char_p(state), ctypes.POINTER(ctypes.c_uint8))
        done = bool(self._set_state(self._context, place, len(state), sequence, flags) == len(state))
        if not done:
            self.cut(sequence, 0)
        return done

    # What `Llama` itself does with the context

    def adopt(self) -> list[int] | None:
        """The ids of the first sequence, and nothing else in memory, if `Llama` itself was used since `leave`; None: it
        was not."""
        llama = self.llama
        found: list[int] = llama.input_ids[: llama.n_tokens].tolist()
        if found == self._left:
            return None
        if self.sequences > 1:  # it cuts all sequences alike
            found = []
            llama.n_tokens = 0
        self._seq_rm(self._memory, -1, len(found), -1)
        self._left = found
        return found

    def leave(self, ids: Any) -> None:
        """Let `Llama` go on from what the first sequence has in memory, its only one; with several, from nothing.

        Args:
            ids: an array of them.
        """
        llama = self.llama
        ids = ids if self.sequences == 1 else ids[:0]
        llama.input_ids[: len(ids)] = ids
        llama.n_tokens = len(ids)
        llama._requires_eval = True
        self._left = ids.tolist()

    def lend(self) -> None:
        """Let `Llama` use the context as it likes; what is in memory is not known from here on."""
        self._left = None
        self.llama.n_tokens = 0

    def load(self, ids: Sequence[int]) -> None:
        """Take over the state that the `Llama`'s cache holds (`Llama.set_cache`), if it fits `ids` better."""
        llama = self.llama
        if not llama.cache or self.sequences > 1:
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
        if not cache or self.sequences > 1:
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

    def chain(self, sampling: Mapping[str, Any], seed: int) -> Callable[[int], int]:
        """llama.cpp's own samplers as llama-cpp-python chains them: given a row's place in the batch, the id drawn."""
        llama = self.llama
        before, llama._seed = llama._seed, seed
        try:
            chain = _need(llama, "_init_sampler")(**sampling)
        finally:
            llama._seed = before
        context = llama._ctx
        return lambda place: int(chain.sample(context, place))


class _Batch:
    """A `llama_batch` whose arrays are numpy's."""

    def __init__(self, size: int) -> None:
        import numpy as np

        low = llama_cpp.llama_cpp
        self._tokens, self._positions, self._sequences = (np.zeros(size, np.int32) for _ in range(3))
        self._counts, self._wanted = np.ones(size, np.int32), np.zeros(size, np.int8)
        first, each = self._sequences.ctypes.data, self._sequences.itemsize
        self._pointers = (ctypes.c_void_p * size)(*(first + i * each for i in range(size)))
        self._batch = _need(low, "llama_batch")(
            0,
            self._as(self._tokens, ctypes.c_int32),
            None,
            self._as(self._positions, ctypes.c_int32),
            self._as(self._counts, ctypes.c_int32),
            ctypes.cast(self._pointers, ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
            self._as(self._wanted, ctypes.c_int8),
        )
        self.count = self.rows = 0

    @staticmethod
    def _as(array: Any, kind: Any) -> Any:
        return array.ctypes.data_as(ctypes.POINTER(kind))

    def add(self, sequence: int, ids: Any, position: int, rows: int) -> int:
        begin, size = self.count, len(ids)
        end = begin + size
        if size == 1:  # most are
            self._tokens[begin], self._positions[begin] = ids[0], position
        else:
            self._tokens[begin:end] = ids
            self._positions[begin:end] = range(position, position + size)
        self._sequences[begin:end] = sequence
        self._wanted[begin:end] = 0
        if rows:
            self._wanted[end - rows : end] = 1
        self.count = end
        first, self.rows = self.rows, self.rows + rows
        return first

    def filled(self) -> Any:
        self._batch.n_tokens = self.count
        return self._batch

    def clear(self) -> None:
        self.count = self.rows = 0
