"""`canitoolcall`'s fixtures through the core, both servers and what others have; and our cases beside the library.

Knows where the spec decides otherwise than the suite (`EXPLAINED`), and writes its part of docs/conformance.md.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from canitoolcall.checks import case_status, run_checks
from canitoolcall.fixtures import Fixture, load_fixtures
from canitoolcall.pytest_plugin import family_for
from canitoolcall.results import CheckResult, Status

from . import cases, subjects

_PARTIAL = (
    "cut off inside a call's JSON: the suite wants no call; SPEC 5 gives the call with its partial arguments and "
    "`finish_reason: length`, in whole replies as in streams"
)
_SPELLED = "marker strings spelled by ordinary tokens: SPEC 2, text alone cannot tell them apart; ids can"
_BUILTIN = (
    "a built-in that nobody declared, where the request offers other tools: the suite wants an empty turn; SPEC 4 "
    "gives the call, so that the agent answers that there is no such tool and the model goes on"
)
#: Ours: fixture and why docs/spec.md decides otherwise.
EXPLAINED = {
    "gpt-oss/harmony-truncated-in-arguments": _PARTIAL,
    "gpt-oss/llamacpp-builtin-python-recipient": _BUILTIN,
    "gpt-oss/harmony-marker-in-arguments": _SPELLED,
    "gpt-oss/harmony-marker-in-reasoning": _SPELLED,
}
_BY_TEXT_ONLY = {name for name, why in EXPLAINED.items() if why is _SPELLED}


class Subject(NamedTuple):
    """A column of the table. ``start`` gets all fixtures, starts what is to be started, and gives the way to ask it."""

    name: str
    what: str
    ours: bool
    start: Callable[[Sequence[Fixture]], subjects.Observe]


SUBJECTS = (
    Subject("core, ids", "`parse` and `Stream` on token ids", True, lambda _: subjects.core_by_ids),
    Subject("core, text", "`parse` and `Stream` on text", True, lambda _: subjects.core_by_text),
    Subject("vLLM + plugin", "`vllm serve --reasoning-parser harmony …`", True, lambda f: subjects.vllm(True, f)),
    Subject("llama.cpp server", "`python -m harmony_plugin.llamacpp`", True, subjects.llamacpp_server),
    Subject("openai_harmony strict", "its messages, read by channel", False, lambda _: subjects.openai_harmony(True)),
    Subject("openai_harmony lenient", "the same, `strict=False`", False, lambda _: subjects.openai_harmony(False)),
    Subject("vLLM stock", "`vllm serve --reasoning-parser openai_gptoss …`", False, lambda f: subjects.vllm(False, f)),
    Subject("llama-cpp-python stock", "`Llama.create_chat_completion`", False, subjects.llamacpp_stock),
)
_MARKS = {Status.PASS: "ok", Status.SOFT_PASS: "ok, white space", Status.FAIL: "**fails**", Status.ERROR: "error"}


class Outcome(NamedTuple):
    status: Status
    rows: tuple[CheckResult, ...]

    def details(self) -> list[str]:
        return [f"{r.check} ({r.strategy}): {r.detail or r.status.value}" for r in self.rows if r.status is Status.FAIL]


def observe(subject: Subject, fixtures: Sequence[Fixture]) -> dict[str, Outcome]:
    ask = subject.start(fixtures)
    found = {}
    for fixture in fixtures:
        rows = tuple(run_checks(fixture, family_for(fixture), ask(fixture)))
        found[fixture.id] = Outcome(case_status(rows), rows)
    return found


def unexplained(subject: Subject, fixture_id: str, outcome: Outcome) -> bool:
    if not subject.ours or outcome.status in (Status.PASS, Status.SOFT_PASS):
        return False
    return fixture_id not in EXPLAINED or (fixture_id in _BY_TEXT_ONLY and subject.name != "core, text")


def document(fixtures: Sequence[Fixture], seen: dict[str, dict[str, Outcome]], own: Sequence[cases.Row]) -> str:
    columns = SUBJECTS
    lines = [
        f"## canitoolcall, family gpt-oss: {len(fixtures)} fixtures",
        "",
        "Every fixture is replayed whole and streamed. The core: the suite's own chunkings, and every id or character "
        "alone. The servers: real processes and a real engine on the CPU whose choice of tokens is scripted, asked "
        "through the `openai` client; past `<|call|>` inside a fixture they are told to go on. A column's mark is the "
        "worst of the suite's checks over all of these.",
        "",
        "| column | what ran | ok | white space | fails |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for subject in columns:
        count = Counter(outcome.status for outcome in seen[subject.name].values())
        failed = count[Status.FAIL] + count[Status.ERROR]
        lines.append(
            f"| {subject.name} | {subject.what} | {count[Status.PASS]} | {count[Status.SOFT_PASS]} | {failed} |"
        )
    lines += ["", "| fixture | " + " | ".join(subject.name for subject in columns) + " |"]
    lines.append("| --- |" + " --- |" * len(columns))
    for fixture in fixtures:
        marks = [_MARKS[seen[subject.name][fixture.id].status] for subject in columns]
        lines.append(f"| {fixture.id.removeprefix('gpt-oss/')} | " + " | ".join(marks) + " |")
    lines += ["", "### Where ours fails a fixture", ""]
    for fixture in fixtures:
        failing = [s.name for s in columns if s.ours and seen[s.name][fixture.id].status in (Status.FAIL, Status.ERROR)]
        if failing:
            why = EXPLAINED.get(fixture.id, "NOT EXPLAINED")
            lines.append(f"- `{fixture.id.removeprefix('gpt-oss/')}` ({', '.join(failing)}): {why}.")
    lines += ["", "### Where the others fail, in the suite's words", ""]
    for subject in columns:
        if subject.ours:
            continue
        lines += ["<details>", f"<summary>{subject.name}</summary>", ""]
        for fixture in fixtures:
            if details := seen[subject.name][fixture.id].details():
                said = details[0].replace("`", "'").replace("\n", " ")
                lines.append(f"- {fixture.id.removeprefix('gpt-oss/')}: `{said[:300]}`")
        lines += ["", "</details>", ""]
    same = sum(row.strict == "same" for row in own)
    both = sum(row.lenient == "same" for row in own)
    lines += [
        f"## Our {len(own)} cases against openai_harmony",
        "",
        "`tests/cases/split.jsonl`, by ids: the messages that the core finds (role, channel, recipient, content type, "
        f"text) beside the library's. The same in strict mode: {same} of {len(own)}; with `strict=False`: {both}. The "
        "rest, and why:",
        "",
        "| case | strict | not strict | why |",
        "| --- | --- | --- | --- |",
    ]
    cells = [[cell.replace("|", "\\|") for cell in row] for row in own if row.why]
    lines += [f"| {' | '.join(row)} |" for row in cells]
    return "\n".join(lines) + "\n"


def run(every: bool) -> tuple[str, list[str]]:
    """This suite's part of the document, and a line for each failure of ours that has no reason here.

    Args:
        every: the fixtures are few: they all run in any case.
    """
    fixtures = load_fixtures(None, families=["gpt-oss"])
    seen: dict[str, dict[str, Outcome]] = {}
    for subject in SUBJECTS:
        print(f"{subject.name} …", file=sys.stderr, flush=True)
        seen[subject.name] = observe(subject, fixtures)
    own = cases.rows()
    bad = [
        f"{subject.name}: {fixture_id}: {'; '.join(outcome.details()[:2])}"
        for subject in SUBJECTS
        for fixture_id, outcome in seen[subject.name].items()
        if unexplained(subject, fixture_id, outcome)
    ]
    bad += [f"case {row.id}: {row.strict}, {row.lenient}" for row in own if row.why == "UNEXPLAINED"]
    return document(fixtures, seen, own), bad
