"""Callbacks that have Ray make the engine's arguments on CPUs as it does on GPUs: in a task, away from the replica.

Ray imports them in the replica. Knows of the plugin its callback alone.
"""

from __future__ import annotations

from ray.llm._internal.common.callbacks.base import CallbackBase
from ray.llm._internal.serve.core.configs.accelerators import CPUAccelerator

from harmony_plugin.ray.serve import RegisterParsers


def _as_on_gpus() -> None:
    CPUAccelerator.requires_remote_initialization = property(lambda _: True)


class InTask(RegisterParsers):
    """The plugin's own."""

    async def on_before_node_init(self) -> None:
        _as_on_gpus()
        await super().on_before_node_init()


class InTaskUnregistered(CallbackBase):  # type: ignore[misc]
    """Ray's own, which registers nothing."""

    async def on_before_node_init(self) -> None:
        _as_on_gpus()
