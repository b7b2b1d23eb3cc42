"""What building a prompt costs: a history of 50 messages with tools, anew and one turn later.

Beside the Harmony library, which renders the same conversation from the start each time, in the same process. Once with
messages of about 45 ids and once of about 180. CPU time, best of several runs.

    python benchmarks/llamacpp_prompts.py [--messages 50] [--turns 20]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

from openai_harmony import Conversation, HarmonyEncodingName, RenderConversationConfig, Role, load_harmony_encoding

from harmony_plugin.prompts import PromptOptions, Prompts

OPTIONS = PromptOptions(current_date="2026-01-02")
TEXT = "The quick brown fox jumps over the lazy dog, and the dog, 你好, does not mind at all. "
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": f"tool_{i}",
            "description": "Does something useful with a place and a number of days.",
            "parameters": {
                "type": "object",
                "properties": {
                    "place": {"type": "string", "description": "Where."},
                    "days": {"type": "integer", "description": "How many."},
                    "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
                },
                "required": ["place"],
            },
        },
    }
    for i in range(10)
]


def history(count: int, text: str) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = [{"role": "system", "content": text}]
    while len(messages) < count:
        n = len(messages)
        call = {"id": f"c{n}", "type": "function", "function": {"name": "tool_1", "arguments": '{"place": "Rome"}'}}
        messages += [
            {"role": "user", "content": f"{n} {text}"},
            {"role": "assistant", "content": None, "reasoning_content": f"{n} {text}", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": f"c{n}", "content": f"{n} {text}"},
            {"role": "assistant", "content": f"{n} {text}"},
        ]
    return messages[:count]


def best(run: Callable[[], Any], turns: int) -> float:
    times = []
    for _ in range(turns):
        begin = time.process_time()
        run()
        times.append(time.process_time() - begin)
    return min(times) * 1e3


def table(messages: list[dict[str, Any]], text: str, turns: int) -> None:
    warm = Prompts(OPTIONS)
    ids = warm.render(messages, tools=TOOLS)
    encoding = load_harmony_encoding(HarmonyEncodingName.HARMONY_GPT_OSS)
    conversation = Conversation.from_messages(warm.messages(messages, tools=TOOLS))
    config = RenderConversationConfig(auto_drop_analysis=False)

    def library() -> list[int]:
        return encoding.render_conversation_for_completion(conversation, Role.ASSISTANT, config)

    def a_turn_later() -> list[int]:
        # One question and one answer that nobody has seen.
        n = time.perf_counter_ns()
        new = [{"role": "assistant", "content": f"{n} {text}"}, {"role": "user", "content": f"{text} {n}"}]
        return warm.render([*messages, *new], tools=TOOLS)

    # The same ids; in the headers of tools' results the library puts them in another order.
    assert sorted(library()) == sorted(ids)
    rows = {
        "Harmony library, whole conversation": best(library, turns),
        "prompts, nothing seen before": best(lambda: Prompts(OPTIONS).render(messages, tools=TOOLS), turns),
        "prompts, one turn later": best(a_turn_later, turns),
        "prompts, the same again": best(lambda: warm.render(messages, tools=TOOLS), turns),
    }
    print(f"{len(messages)} messages, {len(TOOLS)} tools, {len(ids)} ids: CPU ms")
    for name, spent in rows.items():
        print(f"{name:40}{spent:8.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=50)
    parser.add_argument("--turns", type=int, default=20)
    arguments = parser.parse_args()
    for text in (TEXT * 2, TEXT * 8):
        table(history(arguments.messages, text), text, arguments.turns)


if __name__ == "__main__":
    main()
