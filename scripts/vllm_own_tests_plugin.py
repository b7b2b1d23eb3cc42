"""A pytest plugin for vLLM's own tests: with or without this package's parsers, outcomes into a file.

Environment: ``OWN_TESTS_OUTCOMES`` names the file; ``OWN_TESTS_PLUGIN`` set: vLLM's parsers are replaced, as where a
server's flags name them.
"""

from __future__ import annotations

import json
import os
from typing import Any

OUTCOMES: dict[str, str] = {}


def pytest_configure(config: Any) -> None:
    import transformers
    from vllm_rig.model import model_directory

    # gpt-oss's tokenizer is made from the Harmony library: there is no model hub.
    def local(load: Any) -> Any:
        def from_pretrained(name: Any, *args: Any, **kwargs: Any) -> Any:
            return load(model_directory("gpt_oss") if "gpt-oss" in str(name) else name, *args, **kwargs)

        return from_pretrained

    for owner in (transformers.AutoTokenizer, transformers.GenerationConfig):
        owner.from_pretrained = local(owner.from_pretrained)
    if os.environ.get("OWN_TESTS_PLUGIN"):
        import harmony_plugin.vllm.parsers  # noqa: F401 - rebinds those of vLLM


def pytest_runtest_logreport(report: Any) -> None:
    if report.when == "call" or report.outcome != "passed":
        OUTCOMES[report.nodeid] = "skipped" if report.skipped else report.outcome


def pytest_sessionfinish() -> None:
    with open(os.environ["OWN_TESTS_OUTCOMES"], "w", encoding="utf-8") as file:
        json.dump(OUTCOMES, file)
