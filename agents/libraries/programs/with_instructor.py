"""instructor: values of a pydantic model, by a tool, by the API's format, and as they come."""

from __future__ import annotations

import instructor
from openai import OpenAI
from pydantic import BaseModel
from told import API, MODEL, URL, Told, main, prompt


class Sum(BaseModel):
    sum: int
    word: str


MODES = {
    "chat": (instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA),
    "Responses": (instructor.Mode.RESPONSES_TOOLS, None),
}


def client(mode: instructor.Mode) -> instructor.Instructor:
    return instructor.from_openai(OpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0), mode=mode)


def asked(run: str, mode: instructor.Mode) -> Told:
    messages = [{"role": "user", "content": prompt(run)}]
    value = client(mode).create(model=MODEL, messages=messages, response_model=Sum, max_retries=0)
    return Told(thoughts=None, value=value.model_dump())


def partial() -> Told:
    messages = [{"role": "user", "content": prompt("partial")}]
    values = client(BY_FORMAT).create_partial(model=MODEL, messages=messages, response_model=Sum, max_retries=0)
    return Told(thoughts=None, value=list(values)[-1].model_dump())


BY_TOOL, BY_FORMAT = MODES[API]
runs = {"tool": lambda: asked("tool", BY_TOOL)}
if BY_FORMAT is not None:
    runs |= {"schema": lambda: asked("schema", BY_FORMAT), "partial": partial}
main(runs)
