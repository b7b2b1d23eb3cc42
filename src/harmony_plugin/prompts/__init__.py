"""OpenAI chat messages in, Harmony token ids out. See `Prompts` and `render_prompt`."""

from .render import (
    MAX_SCHEMA_DEPTH,
    REASONING_EFFORTS,
    PromptOptions,
    Prompts,
    _depth,
    content_text,
    custom_input,
    placeholder,
    referenced,
    render_prompt,
    tool_function,
    tool_name,
)

__all__ = [
    "MAX_SCHEMA_DEPTH",
    "REASONING_EFFORTS",
    "PromptOptions",
    "Prompts",
    "_depth",
    "content_text",
    "custom_input",
    "placeholder",
    "referenced",
    "render_prompt",
    "tool_function",
    "tool_name",
]
