"""The vLLM plugin in a replica of Ray Serve LLM, by the callback that `LLMConfig` names:

    engine_kwargs: {reasoning_parser: harmony, tool_call_parser: harmony, enable_auto_tool_choice: true}
    callback_config: {callback_class: harmony_plugin.ray.serve.RegisterParsers}

On GPUs Ray makes vLLM's engine arguments in a task of their own, and vLLM loads its plugins where they are made. The
replica splits the replies and would not know the parsers. The one module that touches `ray.llm`; checked against Ray
2.60. Knows nothing of Harmony.
"""

from __future__ import annotations

# Ray has no public name for the class that `callback_config` asks for.
from ray.llm._internal.common.callbacks.base import CallbackBase

from ..vllm import check, register

__all__ = ["RegisterParsers"]


class RegisterParsers(CallbackBase):  # type: ignore[misc]
    """Registers the parsers in the replica, before its engine is started."""

    async def on_before_node_init(self) -> None:
        """Called by Ray.

        Raises:
            UnsupportedVLLM: this vLLM lacks what the parsers need.
            ValueError: a ``HARMONY_*`` variable has a value that it does not take.
        """
        register()
        check()
