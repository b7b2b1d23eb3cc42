"""A vLLM worker that says scripts where tokens are speculated: vLLM refuses logits processors beside drafts.

The same scripts as `scripted_tokens`, forced one step later: on the logits that the sampler gets, rows of drafts
included. A draft that is the script's next token is accepted by vLLM's own rejection sampler, any other is not.

Loaded with `--worker-cls vllm_rig.scripted_worker.ScriptedWorker`; vLLM's scheduler, drafts and sampler are its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vllm.v1.worker.cpu_worker import CPUWorker

from .scripted_tokens import WINDOW, force, script_of


def behind(script: Sequence[int], place: int, said: Sequence[int]) -> int:
    """Where a script goes on, from ``place``, behind what was said; what a grammar forbade of it was passed over."""
    for token in said:
        ahead = script[place : place + WINDOW]
        place += ahead.index(token) + 1 if token in ahead else 0
    return place


class ScriptedWorker(CPUWorker):  # type: ignore[misc]
    """vLLM's worker for CPUs, with scripts in front of its sampler."""

    def init_device(self) -> None:
        super().init_device()
        runner: Any = self.model_runner
        sample = runner._sample

        places: dict[str, tuple[int, int]] = {}  # of each request: how much it has said, and where its script goes on

        def scripted(logits: Any, drafts: Any) -> Any:
            requests, row = runner.input_batch.req_ids, 0
            for gone in places.keys() - set(requests):
                del places[gone]
            for place, request in enumerate(requests):
                state = runner.requests[request]
                count = 0 if drafts is None else drafts.num_draft_tokens[place]
                script = script_of(state.sampling_params)
                if script is not None:
                    seen, at = places.get(request, (0, 0))
                    said = state.output_token_ids
                    at = behind(script, at, said[seen:])
                    places[request] = len(said), at
                    first = row - place  # a request has a row more than drafts
                    for ahead in range(count + 1):
                        force(logits[row + ahead], script, at)
                        if ahead < count:
                            at = behind(script, at, [int(drafts.draft_token_ids[first + ahead])])
                row += count + 1
            return sample(logits, drafts)

        runner._sample = scripted
