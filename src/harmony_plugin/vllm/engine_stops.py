"""What ends a reply besides its tokens, where vLLM looks for it: in the detokenizer, but by what the client sees.

vLLM's front end looks for stop strings in the text it makes of all tokens, headers included: `final` or `json` would
end a reply in a header. A request that this plugin splits carries a note (`Plan.note`, left by its parser's
``adjust_request``); for it the detokenizer is told of no stop strings, and the core, splitting the same tokens, says
when one is met. vLLM then ends the request as always: finish reason ``stop``, the string as ``stop_reason``. The parser
cuts the reply by the same rule.

A reply that goes on too long without an answer is ended in the same way, with finish reason ``length``.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable
from typing import Any

from harmony_plugin.core import Event, Wait

from .splitting import Patience, Plan, Splitter, Stop
from .tokenizers import Tokens

__all__ = ["NOTE", "on_detokenizers", "on_outputs"]

#: The note's name among a request's ``vllm_xargs``.
NOTE = "harmony_plugin_split"


def on_detokenizers(original: Any, tokens_of: Callable[[Any], Tokens], patience: Patience) -> Any:
    """``IncrementalDetokenizer.from_new_request`` with our own ends for requests that carry a note."""

    def from_new_request(cls: Any, tokenizer: Any, request: Any) -> Any:
        detokenizer = original.__func__(cls, tokenizer, request)
        params = request.sampling_params
        note = (getattr(params, "extra_args", None) or {}).get(NOTE)
        strings = getattr(detokenizer, "stop", None)
        if note is None or strings is None or not (strings or patience):
            return detokenizer
        tokens = tokens_of(tokenizer)
        stop = Stop(tuple(strings), bool(detokenizer.include_stop_str_in_output), detokenizer.min_tokens)
        plan = Plan.of_note(note, tokens.options, stop)
        if plan is not None:
            detokenizer.stop = []
            detokenizer.stop_buffer_length = 0
            detokenizer.splitter = Splitter(request.prompt_token_ids, plan, tokens.vocabulary)
            detokenizer.wait = Wait(patience.tokens, patience.seconds, time.monotonic) if patience else None
            kind: Any = type(detokenizer)
            detokenizer.__class__ = _watching(kind)
        return detokenizer

    return classmethod(from_new_request)


class _Overdue(str):
    """In the place of a stop string: the reply's time without an answer is over."""


@functools.cache
def _watching(detokenizer: Any) -> Any:
    """A class of vLLM's detokenizers whose ``update`` says which stop string was met in what the client sees."""

    class Watching(detokenizer):  # type: ignore[misc]
        splitter: Splitter
        wait: Wait | None

        def update(self, new_token_ids: list[int], stop_terminated: bool) -> str | None:
            splitter, new = self.splitter, list(new_token_ids)
            before = splitter.count
            super().update(new_token_ids, stop_terminated)
            # A stop token is no part of the text.
            events = splitter.feed_events(new[:-1] if stop_terminated and not self.include_stop_str_in_output else new)
            if splitter.matched is None:
                if stop_terminated:
                    splitter.finish_events()
                return self._overdue(events, len(new))
            if (surplus := before + len(new) - splitter.count) > 0:
                # Tokens of this step behind the one that completed it: vLLM gives out what the detokenizer has.
                del self.token_ids[-surplus:]
            return splitter.matched

        def _overdue(self, events: Iterable[Event], count: int) -> str | None:
            wait = self.wait
            return _Overdue("no answer") if wait is not None and wait.over(events, count) else None

    return Watching


def on_outputs(original: Any) -> Any:
    """``RequestState.make_request_output``: a reply whose time is over was cut, like one that is too long."""

    def make_request_output(
        self: Any,
        new_token_ids: Any,
        pooling_output: Any,
        finish_reason: Any,
        stop_reason: Any,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        if isinstance(stop_reason, _Overdue):
            finish_reason, stop_reason = type(finish_reason).LENGTH, None
        return original(self, new_token_ids, pooling_output, finish_reason, stop_reason, *args, **kwargs)

    return make_request_output
