"""A vLLM worker that says scripts where tokens are speculated: vLLM refuses logits processors beside drafts.

The same scripts as `scripted_tokens`, forced one step later: on the logits that the sampler gets, rows of drafts
included. A draft that is the script's next token is accepted by vLLM's own rejection sampler, any other is not.

Loaded with `--worker-cls vllm_rig.scripted_worker.ScriptedWorker`; vLLM's scheduler, drafts and sampler are its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vllm.v1.worker.cpu_worker import CPUWorker

from .scripted_tokens import FORCED, RETURN, script_of

WINDOW = 64


def place_in(script: Sequence[int], said: Sequence[int]) -> int:
    """Where a script goes on behind what was said; what a grammar forbade of it was passed over."""
    place = 0
    for token in said:
        ahead = script[place : place + WINDOW]
        place += ahead.index(token) + 1 if token in ahead else 0
    return place


def force(row: Any, script: Sequence[int], said: Sequence[int]) -> None:
    """Have the script's next token sampled, the next that the row allows."""
    place = place_in(script, said)
    for token in (*script[place : place + WINDOW], RETURN):
        if row[token] > float("-inf"):
            row[token] = FORCED
            return


class ScriptedWorker(CPUWorker):  # type: ignore[misc]
    """vLLM's worker for CPUs, with scripts in front of its sampler."""

    def init_device(self) -> None:
        super().init_device()
        runner = self.model_runner
        sample = runner._sample

        def scripted(logits: Any, drafts: Any) -> Any:
            row = 0
            for request in runner.input_batch.req_ids:
                state = runner.requests[request]
                place = runner.input_batch.req_id_to_index[request]
                count = 0 if drafts is None else drafts.num_draft_tokens[place]
                script = script_of(state.sampling_params)
                if script is not None:
                    said = list(state.output_token_ids)
                    drafted = [] if count == 0 else drafts.draft_token_ids[row - place :][:count].tolist()
                    for ahead in range(count + 1):
                        force(logits[row + ahead], script, said + drafted[:ahead])
                row += count + 1
            return sample(logits, drafts)

        runner._sample = scripted
