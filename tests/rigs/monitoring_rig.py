"""What `examples/monitoring` asks of Prometheus, taken apart; and a real Prometheus over a server of the tests.

Knows metrics as text and no server. PromQL is read by `promql_parser`; rules and dashboard are the examples' files.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import promql_parser
import pytest
import yaml
from ports import free_port
from prometheus_client.parser import text_string_to_metric_families

MONITORING = Path(__file__).resolve().parents[2] / "examples" / "monitoring"
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((MONITORING / "alerts.yaml").read_text("utf-8"))["groups"]
    for rule in group["rules"]
]
RECORDED = frozenset(rule["record"] for rule in RULES if "record" in rule)
PANELS: list[dict[str, Any]] = [
    panel
    for panel in json.loads((MONITORING / "dashboard.json").read_text("utf-8"))["panels"]
    if panel["type"] != "row"
]
KEY = "change-me"
"""The API key in the README's prometheus.yml."""
#: Prometheus' own, and those that it gives to what it scrapes.
OF_PROMETHEUS = frozenset({"up", "ALERTS"})
TARGET_LABELS = frozenset({"job", "instance"})


def filled(expression: str) -> str:
    """A panel's query, its variables replaced as Grafana does it: all servers, a scrape interval of seconds."""
    return expression.replace("$__rate_interval", "1m").replace("$job", ".*").replace("$instance", ".*")


def queries(panel: Mapping[str, Any]) -> list[str]:
    return [filled(target["expr"]) for target in panel["targets"]]


EXPRESSIONS: list[str] = [rule["expr"] for rule in RULES] + [query for panel in PANELS for query in queries(panel)]


@dataclass
class Asked:
    """What an expression reads: labels by the metric's name, those of a match with their value."""

    matches: list[tuple[str, str, str]] = field(default_factory=list)
    labels: dict[str, set[str]] = field(default_factory=dict)


def asked(expression: str) -> Asked:
    """The metrics of an expression; labels that an aggregation keeps are wanted of each metric that it adds up."""
    found = Asked()

    def visit(node: Any, kept: frozenset[str]) -> None:
        match node:
            case promql_parser.AggregateExpr():
                visit(node.expr, kept.union(node.modifier.labels if node.modifier is not None else ()))
            case promql_parser.BinaryExpr():
                visit(node.lhs, kept)
                # These only say which series of the left side stay.
                visit(node.rhs, frozenset() if str(node.op) in ("and", "unless") else kept)
            case promql_parser.Call():
                for argument in node.args:
                    visit(argument, kept)
            case promql_parser.ParenExpr():
                visit(node.expr, kept)
            case promql_parser.MatrixSelector():
                visit(node.vector_selector, kept)
            case promql_parser.VectorSelector():
                assert node.name is not None, f"no metric's name: {expression}"
                matchers = node.matchers.matchers
                found.matches += [(node.name, matcher.name, matcher.value) for matcher in matchers]
                found.labels.setdefault(node.name, set()).update(kept, (matcher.name for matcher in matchers))
            case promql_parser.NumberLiteral():
                pass
            case _:
                raise TypeError(f"{type(node).__name__} in {expression}")

    visit(promql_parser.parse(expression), frozenset())
    return found


def read(prefix: str = "") -> set[str]:
    """The metrics of servers that rules and panels read, by how their names begin."""
    names = {name for expression in EXPRESSIONS for name in asked(expression).labels}
    return {name for name in names - OF_PROMETHEUS - RECORDED if name.startswith(prefix)}


def exported(text: str) -> dict[str, set[str]]:
    """The names in a server's `/metrics`, with their labels; one that has no series yet has none."""
    names: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        base = family.name.removesuffix("_total")
        for suffix in {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}.get(family.type, ("",)):
            names.setdefault(base + suffix, set())
        for sample in family.samples:
            names.setdefault(sample.name, set()).update(sample.labels)
    return names


def wrong_labels(names: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Labels that the expressions want of metrics in `names` which have others."""
    wrong: dict[str, set[str]] = {}
    for expression in EXPRESSIONS:
        for name, labels in asked(expression).labels.items():
            if names.get(name) and (missing := labels - names[name] - TARGET_LABELS):
                wrong.setdefault(name, set()).update(missing)
    return wrong


def tool(name: str) -> str:
    """Where a tool of Prometheus is; the test is skipped where it is not."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name} (Debian's package prometheus)")
    return found


class Prometheus:
    """Prometheus as the README configures it, over one server, for the time of a `with` block.

    Args:
        folder: for its files.
        job: the README's job that scrapes the server.
        url: the server's.
    """

    def __init__(self, folder: Path, job: str, url: str) -> None:
        self._folder = folder
        (block,) = re.findall(r"```yaml\n(.*?)```", (MONITORING / "README.md").read_text("utf-8"), re.DOTALL)
        config = yaml.safe_load(block)
        # All of it sooner than the README has it, so that nobody waits.
        config["global"] |= {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = [str(MONITORING / file) for file in config["rule_files"]]
        config["scrape_configs"] = [scrape for scrape in config["scrape_configs"] if scrape["job_name"] == job]
        config["scrape_configs"][0]["static_configs"][0]["targets"] = [url.removeprefix("http://")]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config), "utf-8")
        self._address = f"127.0.0.1:{free_port()}"
        self._http = httpx.Client(base_url=f"http://{self._address}/api/v1", timeout=30)

    def __enter__(self) -> Prometheus:
        self._log = (self._folder / "prometheus.log").open("wb")
        self._process = subprocess.Popen(
            [
                tool("prometheus"),
                f"--config.file={self._folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={self._folder / 'data'}",
                f"--web.listen-address={self._address}",
            ],
            stdout=self._log,
            stderr=self._log,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(30)
        self._http.close()
        self._log.close()

    def get(self, path: str, **fields: str) -> Any:
        """The data of an answer of its API, which is no error."""
        answer = self._http.get(path, params=fields).json()
        assert answer["status"] == "success", (answer, fields)
        return answer["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series of an expression now."""
        found: list[dict[str, Any]] = self.get("/query", query=expression)["result"]
        return found

    def wait(self, scrapes: int, timeout: float = 120) -> None:
        """Until the server was scraped that many times in all, and the rules were evaluated as often."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            assert self._process.poll() is None, (self._folder / "prometheus.log").read_text("utf-8")
            try:
                evaluated = "count_over_time(job_instance:harmony_requests_running:sum[1h])"
                if self.query(f"count_over_time(up[1h]) >= {scrapes} and {evaluated} >= {scrapes}"):
                    return
            except httpx.TransportError:
                pass  # it does not listen yet
            time.sleep(0.5)
        pytest.fail(
            f"no {scrapes} scrapes in {timeout:.0f} s:\n" + (self._folder / "prometheus.log").read_text("utf-8")
        )

    def rules(self) -> Iterator[dict[str, Any]]:
        """All rules, as they were evaluated last."""
        for group in self.get("/rules")["groups"]:
            yield from group["rules"]

    def panels_without_data(self) -> set[str]:
        """The titles of panels none of whose queries gives a series; no query may fail."""
        empty = set()
        for panel in PANELS:
            given = [series for query in queries(panel) for series in self.query(query)]
            if not given:
                empty.add(panel["title"])
        return empty
