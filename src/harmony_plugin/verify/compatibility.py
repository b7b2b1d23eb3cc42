"""Questions in the manner of OpenAI's compatibility test for those who serve gpt-oss: several tools are offered, and
the right one must be called with arguments that its schema allows, in the API's shape, with reasoning beside it.

The questions and tools are this package's own (`questions.json`), and so is what is asked for: no reply of a wrong
shape, and more than 90 % of the questions.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .asks import Ask, Json, Reply, Tool
from .checks import Asker, check
from .results import Cut, Fails, Missed

__all__ = ["questions"]

FILE = Path(__file__).with_name("questions.json")
LEAST = 0.9


@dataclass(frozen=True)
class Question:
    """`tool`: the name of the one to be called."""

    id: str
    ask: Ask
    tool: str

    def problem(self, reply: Reply) -> str | None:
        """Why `reply` does not pass; None: it does."""
        tools = {tool.name: tool for tool in self.ask.tools}
        if [call.name for call in reply.calls] != [self.tool]:
            return f"called {[call.name for call in reply.calls]}, not {self.tool}"
        if problem := tools[self.tool].problem(reply.calls[0].arguments):
            return f"arguments: {problem}"
        if reply.finish != "tool_calls":
            return f"the finish reason is {reply.finish!r}"
        return None if reply.reasoning else "no reasoning"


@cache
def questions() -> tuple[Question, ...]:
    """All of them."""
    read = json.loads(FILE.read_text("utf-8"))
    tools = tuple(Tool(tool["name"], tool["description"], tool["schema"]) for tool in read["tools"])
    return tuple(Question(q["id"], Ask(q["text"], tools), q["tool"]) for q in read["questions"])


@check("compatibility", "An agent's questions: the right tool, valid arguments, reasoning", repeats=True)
def compatibility(asker: Asker) -> str:
    return _examine(asker, streamed=False)


@check("compatibility-streamed", "The same questions, streamed", repeats=True)
def compatibility_streamed(asker: Asker) -> str:
    return _examine(asker, streamed=True)


def _examine(asker: Asker, *, streamed: bool) -> str:
    """Ask each question until it passes, or `passes` times."""
    told = [_ask(asker, question, streamed=streamed) for question in questions()]
    failed = [f"{question['id']}: {question['problem']}" for question in told if not question["passed"]]
    first = sum(question["passed"] and question["asked"] == 1 for question in told)
    some = len(told) - len(failed)
    asker.more |= {"questions": told, "pass@1": first / len(told), f"pass@{asker.passes}": some / len(told)}
    summary = f"pass@1 {first}/{len(told)}, pass@{asker.passes} {some}/{len(told)}"
    if some / len(told) <= LEAST:
        raise Missed(f"{summary}; {asker.most(failed)}")
    return summary


def _ask(asker: Asker, question: Question, *, streamed: bool) -> Json:
    """How a question went. `problem`: why it did not pass when it was asked last."""
    problem: str | None = None
    for attempt in range(asker.passes):
        asker.attempt = attempt
        try:
            reply = asker.streamed(question.ask) if streamed else asker.whole(question.ask)
        except Cut as error:
            problem = str(error)
            continue
        if reply.problems:
            raise Fails(f"{question.id}: {reply.problems[0]}")
        problem = question.problem(reply)
        if problem is None:
            break
    told = None if problem is None else asker.endpoint.redacted(problem)
    return {"id": question.id, "passed": problem is None, "asked": attempt + 1, "problem": told}
