"""Strict settings on the real server: malformed output is an error in the API's shape, whole and streamed."""

from __future__ import annotations

from typing import Any

import anthropic
import openai
import pytest
from vllm_rig.replies import APIS, Api, Clients, Script, encode, gather_bounded
from vllm_rig.server import Launch

LAUNCH = Launch(environment=(("HARMONY_STRICT", "true"),))
MALFORMED = Script(tuple(encode("<|channel|>analysis<|message|>Hm.<|channel|>final<|message|>Hi.<|return|>")))
SOUND = Script(
    tuple(encode("<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Hi.<|return|>"))
)


@pytest.mark.parametrize("api", APIS)
def test_strict(api: Api, pool: Any, run: Any) -> None:
    server = pool.get(LAUNCH)

    async def work() -> list[Any]:
        async with Clients(server.url) as clients:
            return await gather_bounded(
                [clients.ask(api, script, stream=stream) for script in (SOUND, MALFORMED) for stream in (False, True)]
            )

    *sound, whole, streamed = run(work())
    assert [told.fields for told in sound] == [("Hm.", "Hi.", [])] * 2
    assert isinstance(whole, (openai.BadRequestError, anthropic.BadRequestError))
    # The clients tell of an error event by an error of their own; the rig, of one on Responses.
    assert isinstance(streamed, (openai.APIError, anthropic.APIStatusError, AssertionError))
    for error in (whole, streamed):
        assert "missing_end at token 5: a message ended without an end marker" in str(error)
