"""llama-cpp-python's own server, its model made to say what a file of scripts says: `python -m … SCRIPTS --model …`.

Everything is `python -m llama_cpp.server` but what is sampled: the engine's own hook, a logits processor.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import llama_cpp
from llama_cpp.server.__main__ import main

from harmony_plugin.demo.script import Replay, Scripts


def scripted(scripts: Scripts) -> None:
    """Have each generation answer the question that stands in its prompt."""
    generate = llama_cpp.Llama.generate

    def answering(self: Any, tokens: Sequence[int], *args: Any, **kwargs: Any) -> Any:
        prompt = self.detokenize(list(tokens), special=True).decode("utf-8", "replace")
        reply = scripts.reply({"messages": [{"role": "user", "content": prompt}]})
        if reply is not None:
            before = list(kwargs.get("logits_processor") or ())
            replay = Replay(reply, len(tokens))
            kwargs["logits_processor"] = llama_cpp.LogitsProcessorList([*before, replay])
        return generate(self, tokens, *args, **kwargs)

    llama_cpp.Llama.generate = answering


if __name__ == "__main__":
    scripted(Scripts.load(sys.argv.pop(1)))
    main()
