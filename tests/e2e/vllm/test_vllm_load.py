"""Many streams at once, a third of them hung up on: the others are exact and the server keeps nothing of them.

The long version, with more rounds and its figures: `benchmarks/vllm_load.py`.
"""

from __future__ import annotations

import time
from typing import Any

from vllm_rig.load import api_memory, complaints, run_round, unfinished
from vllm_rig.replies import Clients

ROUNDS = 3
MIB = 2**20


def test_many_streams_a_third_hung_up_on(server: Any, run: Any) -> None:
    log_before = len(server.log_text())
    memory: list[int] = []

    async def work() -> None:
        async with Clients(server.url) as clients:
            for number in range(ROUNDS):
                seen = await run_round(clients, number)
                assert not seen.wrong, "\n".join(seen.wrong[:5])
                # On a busy machine a reply may come in fewer, larger pieces and end before its client hangs up.
                assert seen.left > 64 // 6
                assert seen.left + seen.exact == 64
                memory.append(api_memory(server))

    run(work())
    deadline = time.monotonic() + 30
    while unfinished(server.url) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert unfinished(server.url) == 0, "a client that hung up has its request ended"
    assert not complaints(server.log_text()[log_before:])
    # The first round fills caches and pools; what a stream leaked would add up after it.
    assert memory[-1] - memory[0] < 16 * MIB, [m // MIB for m in memory]
