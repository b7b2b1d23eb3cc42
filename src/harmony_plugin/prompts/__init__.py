"""OpenAI chat messages in, Harmony token ids out. See `Prompts` and `render_prompt`."""

from .parts import content_text, placeholder
from .render import REASONING_EFFORTS, PromptOptions, Prompts, render_prompt
from .schema import MAX_SCHEMA_DEPTH, nests_too_deep, referenced
from .tools import custom_arguments, custom_input, tool_function, tool_name

__all__ = [
    "MAX_SCHEMA_DEPTH",
    "REASONING_EFFORTS",
    "PromptOptions",
    "Prompts",
    "content_text",
    "custom_arguments",
    "custom_input",
    "nests_too_deep",
    "placeholder",
    "referenced",
    "render_prompt",
    "tool_function",
    "tool_name",
]
