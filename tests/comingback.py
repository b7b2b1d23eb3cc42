"""Replies in which fields come back, and the kinds of the items or blocks that they are: one for each message."""

from __future__ import annotations

S, E, A = "<|start|>assistant", "<|end|>", "<|channel|>"
THINK, MORE = f"{A}analysis<|message|>First thought.", f"{A}analysis<|message|>Second thought."
SAY, DONE = f"{A}commentary<|message|>Let me look.", f"{A}final<|message|>Done."
CALL = f'{A}commentary to=functions.f <|constrain|>json<|message|>{{"a": 1}}<|call|>'
PATCH = f'{A}commentary to=functions.p <|constrain|>json<|message|>{{"input": "*** Begin\\n"}}<|call|>'

AGAIN = {
    "each field twice": ([THINK, SAY, MORE, DONE], "rmrm"),
    "reasoning twice in a row": ([THINK, MORE, DONE], "rrm"),
    "content twice in a row": ([SAY, DONE], "mm"),
    "calls around a preamble": ([THINK, CALL, SAY, CALL], "rcmc"),
    "reasoning between calls": ([CALL, MORE, CALL, DONE], "crcm"),
    "an empty message between": ([THINK, f"{A}analysis<|message|>", DONE], "rm"),
    "a custom tool's call": ([THINK, PATCH, DONE], "rcm"),
}
OFFERED = {"tools": ["f", "p"]}
MANY = {
    name: (f"{E}{S}".join(parts).replace(f"<|call|>{E}", "<|call|>"), kinds) for name, (parts, kinds) in AGAIN.items()
}
