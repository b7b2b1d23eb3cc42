"""A cluster of two nodes on this machine, for the tests that need Ray."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import harmony_plugin

_RIGS = Path(__file__).resolve().parents[1] / "rigs"
_SOURCE = Path(harmony_plugin.__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """The cluster, with this process connected to it."""
    ray = pytest.importorskip("ray", reason="Ray is not installed: make ray")
    from ray.cluster_utils import Cluster

    # Its processes run the code that the tests import.
    os.environ["PYTHONPATH"] = os.pathsep.join((str(_RIGS), str(_RIGS.parent), str(_SOURCE)))
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_memory_monitor_refresh_ms", "0")  # other programs' memory is no reason to end workers
    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        started.add_node(num_cpus=1)
        ray.init(address=started.address, log_to_driver=False)
        yield started
    finally:
        ray.shutdown()
        started.shutdown()
