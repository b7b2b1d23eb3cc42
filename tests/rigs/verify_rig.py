"""A model that answers the checks of `harmony_plugin.verify` as it should: scripts, chosen by what is asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llamacpp_rig import AT_ONCE, ONE_THREAD, answer, call, sound

from harmony_plugin.demo.model import build_model
from harmony_plugin.demo.process import ServerProcess

THOUGHT = "<|channel|>analysis<|message|>Need a tool.<|end|><|start|>assistant"
UNICODE = "Zürich 東京 Ωμέγα 🦙 naïve “quoted”"
STORY = " ".join(f"wave{i}" for i in range(60))
PLANETS = "1. Mercury\n2. Venus\n3. Earth\n4. Mars\n5. Jupiter\n6. Saturn"


def thinks(text: str) -> str:
    return answer(text, "Simple.")


def calls(name: str, **arguments: Any) -> str:
    return THOUGHT + call(name, json.dumps(arguments, ensure_ascii=False))


#: What is in the question, and what the model says: one text, or one for each turn.
ANSWERS: dict[str, str | list[str]] = {
    "three spiders": thinks("Three spiders have 24 legs."),
    "weather in Paris? Use": calls("get_weather", city="Paris"),
    "thousand words": thinks(STORY),
    "four seasons": thinks("Spring, summer, autumn, winter"),
    "weather in Rome": calls("get_weather", city="Rome"),
    "Repeat this line": thinks(UNICODE),
    "name for a cat": thinks("Miso"),
    "17 times 23": answer("391", "17 * 23 = 391."),
    "weather in Oslo": [calls("get_weather", city="Oslo"), thinks("37 degrees.")],
    "weather in Cairo": [calls("get_weather", city="Cairo", unit="celsius"), thinks("It is 37 degrees in Cairo.")],
    "weather in Lima": calls("get_weather", city="Lima"),
    "Say hello in one word": thinks("Hello!"),
    "weather in Madrid": thinks("I cannot look that up."),
    "raining in Bern": calls("get_weather", city="Bern"),
    "weather in Tokyo": calls("get_time", zone="Asia/Tokyo"),
    "table outside at Luigi": calls(
        "book_table", restaurant="Luigi's", guests=["Ann", "Bob"], seating={"place": "outside"}, hour=19
    ),
    "Call both tools at once": THOUGHT
    + call("get_weather", '{"city":"Paris"}')
    + "<|start|>assistant"
    + call("get_time", '{"zone":"Europe/Paris"}'),
    "Ada Lovelace": thinks('{"name":"Ada Lovelace","age":36,"tags":["mathematics","computing"]}'),
    "six planets": thinks(PLANETS),
    "capital of France": thinks("Paris"),
    "umbrella in Hamburg": calls("get_forecast", city="Hamburg", day="tomorrow"),
    "warm does it get in Phoenix": calls("get_forecast", city="Phoenix", day="today", unit="fahrenheit"),
    "250 euros": calls("convert_currency", amount=250, to="JPY", **{"from": "EUR"}),
    "£12.99": calls("convert_currency", amount=12.99, to="CHF", **{"from": "GBP"}),
    "dentist appointment": calls("create_event", title="Dentist", date="2027-03-14", start="09:30"),
    "design review": calls(
        "create_event", title="Design review", date="2027-05-03", start="14:00", minutes=45, guests=["Mira", "Tomás"]
    ),
    "ten minutes late": calls("send_email", to=["lena@example.com"], subject="Running late", body="Ten minutes."),
    "ops@example.com": calls(
        "send_email", to=["ops@example.com", "oncall@example.com"], subject="Disk full", body="db-3 has 2% left."
    ),
    "lease of the flat": calls("search_files", query="lease flat", type="pdf"),
    "spreadsheets with a budget": calls("search_files", query="budget", type="spreadsheet", limit=5),
    "26.2 miles": calls("convert_unit", quantity={"value": 26.2, "unit": "mi"}, to="km"),
    "350 °F": calls("convert_unit", quantity={"value": 350, "unit": "°F"}, to="°C"),
}


def write_answers(path: Path) -> Path:
    lines = []
    for place, (when, said) in enumerate(ANSWERS.items()):
        replies = [{"raw": text} for text in ([said] if isinstance(said, str) else said)]
        lines.append(json.dumps({"id": f"verify-{place}", "when": when, "replies": replies}))
    path.write_text("".join(line + "\n" for line in lines), "utf-8")
    return path


@contextmanager
def answering(folder: Path) -> Iterator[ServerProcess]:
    """The scripted server, whose model answers the checks."""
    model = ("--model", str(build_model()), "--model_alias", "tiny", "--n_ctx", "8192", *AT_ONCE, *ONE_THREAD)
    script = str(write_answers(folder / "answers.jsonl"))
    with sound(ServerProcess(["-m", "harmony_plugin.demo.server", "--script", script, *model])) as running:
        yield running


def script_of(question: str) -> str:
    """The id of the script that answers a question."""
    return f"verify-{list(ANSWERS).index(question)}"
