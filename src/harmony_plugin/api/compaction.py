"""Compaction on the Responses API: the model sums a conversation up, and a sealed item stands for what it summed up.

A client asks for it by ``/v1/responses/compact``, or by a last input item ``compaction_trigger`` as Codex does, and
sends the item on in place of what it stands for; `responses` shows it to the model. What the user said is kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from ..core import RequestError, Text
from .reply import Piece, Usage
from .responses import ResponsesRequest, ResponseWriter, new_id
from .tools import Toolbox

__all__ = ["CompactionWriter", "asks_for_compaction", "compacted", "to_summary"]

Json: TypeAlias = "dict[str, Any]"

ASKED = (
    "Sum this conversation up, so that somebody who sees nothing of it but your summary and what the user said can go "
    "on with the work: what the task is and what the user wants of it, what was done and decided and why, what was "
    "found out (names, paths, commands, figures and errors as they are), what is open, and what comes next. Write the "
    "summary only. Call no tool, and leave the work itself for later."
)


def asks_for_compaction(request: ResponsesRequest) -> bool:
    """Whether the reply is to be a compaction."""
    given = request.input
    return bool(given) and not isinstance(given, str) and given[-1].get("type") == "compaction_trigger"


def to_summary(chat: Mapping[str, Any]) -> Json:
    """A chat request that asks for the summary instead of an answer. Its prompt begins as that request's would: tools
    are shown, though none may be called, so that what was evaluated of the conversation is not evaluated again."""
    asked = {k: v for k, v in chat.items() if k not in ("response_format", "logprobs", "top_logprobs", "stop")}
    asked["messages"] = [*chat["messages"], {"role": "user", "content": ASKED}]
    return {**asked, "tool_choice": "none", "tools_shown": True}


def compacted(items: Sequence[Json], response: Json) -> Json:
    """The reply of ``/v1/responses/compact``: what the user said, and the item of `response` for all the rest.

    Args:
        items: of the conversation, as `input_items` gives them.

    Raises:
        RequestError: 422: there is no summary.
    """
    if response["status"] != "completed":
        raise RequestError(_why(response), None, "no_summary", 422)
    said = [item for item in items if item["type"] == "message" and item.get("role") == "user"]
    return {
        "id": response["id"],
        "object": "response.compaction",
        "created_at": int(time.time()),
        "output": [*said, *response["output"]],
        "usage": response["usage"],
    }


class CompactionWriter(ResponseWriter):
    """Writes a summary down as a response with one item, `compaction`. What the model thought of it is left out."""

    def __init__(
        self,
        request: ResponsesRequest,
        model: str,
        toolbox: Toolbox,
        seal: Callable[[str], str],
        sampling: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(request, model, toolbox, sampling=sampling)
        self._close_summary = seal
        self._summary: list[str] = []

    def feed(self, piece: Piece) -> Iterator[Json]:
        self._summary += [event.text for event in piece.events if isinstance(event, Text) and event.field == "content"]
        self._ending = piece.ending or self._ending
        return iter(())

    def finish(self, usage: Usage) -> Iterator[Json]:
        summary = "".join(self._summary).strip()
        whole = self._ending is None or self._ending.finish_reason != "length"
        if whole and not summary:
            self.response["usage"] = usage.to_responses()
            yield from self.fail(RequestError("The model wrote no summary.", None, "no_summary", 422))
            return
        if whole:  # half a summary would pass for a whole one
            item = {"id": new_id("cmp"), "type": "compaction", "encrypted_content": self._close_summary(summary)}
            index = len(self.response["output"])
            self.response["output"].append(item)
            yield self._event("response.output_item.added", output_index=index, item=item)
            yield self._event("response.output_item.done", output_index=index, item=item)
        yield from super().finish(usage)


def _why(response: Json) -> str:
    if response["status"] == "incomplete":
        return "The summary did not fit: raise max_output_tokens, or compact a shorter conversation."
    return str(response["error"]["message"])
