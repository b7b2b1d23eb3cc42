"""Builds `dashboard.json` with Grafana's own library; `--write` puts it beside this file, else it is printed.

A panel shows both servers where both know the thing. Knows names of metrics and no server; tests hold the names to what
servers export. The classic JSON, which every Grafana imports: the library would rather have its successor, v2, written,
which older ones do not know. Needs `pip install grafana-foundation-sdk==0.0.21` (Python 3.11+).
"""

from __future__ import annotations

import sys
from pathlib import Path
from string import ascii_uppercase

from grafana_foundation_sdk.builders import common, dashboard, prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.common import DataSourceRef, LegendDisplayMode, TooltipDisplayMode
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, VariableOption, VariableRefresh, VariableSort

__all__ = ["FILE", "ROWS", "text"]

FILE = Path(__file__).with_name("dashboard.json")
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
SELECTED = 'job=~"$job", instance=~"$instance"'
# Probes are counted, too, and would hide the requests that take long.
GENERATING = 'endpoint=~"/v1/(chat/completions|completions|embeddings|messages|responses)"'
# What only such servers export: llama.cpp's, vLLM with the plugin.
SERVERS = '{__name__=~"harmony_requests_running|harmony_replies_total"'

Query = tuple[str, str]
"""PromQL, and the legend of what it gives."""
Panel = tuple[str, str, str, list[Query]]
"""Title, unit, description, queries."""


def metric(name: str, *labels: str) -> str:
    """The series of the chosen servers."""
    return f"{name}{{{', '.join((SELECTED, *labels))}}}"


def rate(name: str, *labels: str) -> str:
    """A counter's, a second."""
    return f"rate({metric(name, *labels)}[$__rate_interval])"


def vllm_requests(*labels: str) -> str:
    """Requests a second to vLLM, whose name for them every FastAPI service may have."""
    return f"{rate('http_requests_total', *labels)} and on (job, instance) {metric('vllm:num_requests_running')}"


def total(series: str, *by: str) -> str:
    """The sum over servers, by labels."""
    return f"sum by ({', '.join(by)}) ({series})"


def share(part: str, whole: str) -> str:
    """A part of a whole; nothing where there is nothing."""
    return f"{total(part, 'instance')} / ({total(whole, 'instance')} > 0)"


def quantiles(histogram: str, *labels: str) -> list[Query]:
    """What half of the requests stay below, and all but one in twenty."""
    buckets = total(rate(f"{histogram}_bucket", *labels), "instance", "le")
    return [(f"histogram_quantile({q}, {buckets})", f"p{q * 100:.0f} {{{{instance}}}}") for q in (0.5, 0.95)]


SPLIT_BY_PLUGIN = "vLLM with the plugin exports this."
ROWS: dict[str, list[Panel]] = {
    "Traffic": [
        (
            "Requests",
            units.RequestsPerSecond,
            "Answered, by endpoint and status. vLLM gives classes of statuses.",
            [
                (total(rate("harmony_requests_total"), "endpoint", "status"), "{{endpoint}} {{status}}"),
                (total(vllm_requests(), "handler", "status"), "{{handler}} {{status}}"),
            ],
        ),
        (
            "Running and waiting",
            units.Short,
            "Requests with the engine, and in line for it, now.",
            [
                (total(metric("harmony_requests_running"), "instance"), "running {{instance}}"),
                (total(metric("vllm:num_requests_running"), "instance"), "running {{instance}}"),
                (total(metric("harmony_requests_waiting"), "instance"), "waiting {{instance}}"),
                (total(metric("vllm:num_requests_waiting"), "instance"), "waiting {{instance}}"),
            ],
        ),
        (
            "Given up by clients",
            units.RequestsPerSecond,
            "Requests whose client went away.",
            [
                (total(rate("harmony_requests_cancelled_total"), "instance", "endpoint"), "{{instance}} {{endpoint}}"),
                (total(rate("vllm:request_success_total", 'finished_reason="abort"'), "instance"), "{{instance}}"),
            ],
        ),
        (
            "Refused and failed",
            units.RequestsPerSecond,
            "429: the queue is full. 5xx: failures. /readyz answers 503 while no model is loaded.",
            [
                (
                    total(rate("harmony_requests_total", 'status=~"429|5.."', 'endpoint!="/readyz"'), "status"),
                    "{{status}}",
                ),
                (total(vllm_requests('status="5xx"'), "status"), "{{status}}"),
                (total(rate("vllm:admission_rejections_total"), "reason"), "refused {{reason}}"),
            ],
        ),
    ],
    "Latency": [
        (
            "Time to first chunk",
            units.Seconds,
            "From the request to a stream's first text (llama.cpp) or to its first token (vLLM), waiting included.",
            quantiles("harmony_time_to_first_chunk_seconds") + quantiles("vllm:time_to_first_token_seconds"),
        ),
        (
            "Duration of requests",
            units.Seconds,
            "From the request to its end, waiting included.",
            quantiles("harmony_request_duration_seconds", GENERATING) + quantiles("vllm:e2e_request_latency_seconds"),
        ),
        ("Time between tokens, vLLM", units.Seconds, "Of one reply.", quantiles("vllm:inter_token_latency_seconds")),
        (
            "Seconds of splitting",
            units.Seconds,
            "A second: 1 is one core.",
            [
                (total(rate("harmony_splitting_seconds_total"), "instance"), "{{instance}}"),
                (total(rate("harmony_engine_seconds_total", 'part="splitting"'), "instance"), "{{instance}}"),
            ],
        ),
    ],
    "Tokens": [
        (
            "Tokens, llama.cpp",
            units.Short,
            "A second, of finished replies. prompt holds prompt_cached, completion holds reasoning.",
            [(total(rate("harmony_tokens_total"), "model", "kind"), "{{kind}} {{model}}")],
        ),
        (
            "Tokens, vLLM",
            units.Short,
            "A second.",
            [
                (total(rate("vllm:prompt_tokens_total"), "model_name"), "prompt {{model_name}}"),
                (total(rate("vllm:generation_tokens_total"), "model_name"), "completion {{model_name}}"),
            ],
        ),
        (
            "Chunks",
            units.Short,
            "A second: chunks of streams and finished whole replies, as the engine of llama.cpp gave them.",
            [(total(rate("harmony_chunks_total"), "instance"), "{{instance}}")],
        ),
    ],
    "Harmony": [
        (
            "Repaired replies",
            units.PercentUnit,
            f"Share of replies with an issue of malformed output. {SPLIT_BY_PLUGIN}",
            [
                (
                    share(rate("harmony_replies_total", 'outcome="repaired"'), rate("harmony_replies_total")),
                    "{{instance}}",
                )
            ],
        ),
        (
            "Replies",
            units.Short,
            f"A second, by outcome. {SPLIT_BY_PLUGIN}",
            [(total(rate("harmony_replies_total"), "outcome"), "{{outcome}}")],
        ),
        (
            "Issues",
            units.Short,
            f"A second, by code: harmony_plugin.CODES says what each means. {SPLIT_BY_PLUGIN}",
            [(total(rate("harmony_issues_total"), "code"), "{{code}}")],
        ),
        (
            "Messages",
            units.Short,
            f"A second, by the channel that they were taken for. {SPLIT_BY_PLUGIN}",
            [(total(rate("harmony_messages_total"), "channel"), "{{channel}}")],
        ),
        (
            "Tool calls a reply",
            units.Short,
            SPLIT_BY_PLUGIN,
            [(share(rate("harmony_tool_calls_total"), rate("harmony_replies_total")), "{{instance}}")],
        ),
        (
            "Reasoning",
            units.PercentUnit,
            "Share of generated tokens that are reasoning.",
            [
                (
                    share(
                        rate("harmony_tokens_total", 'kind="reasoning"'),
                        rate("harmony_tokens_total", 'kind="completion"'),
                    ),
                    "{{instance}}",
                ),
                (share(rate("harmony_reasoning_tokens_total"), rate("vllm:generation_tokens_total")), "{{instance}}"),
            ],
        ),
    ],
    "Engine: llama.cpp": [
        (
            "Steps",
            units.Short,
            "A second. Each goes on with every reply, and reads a slice of a prompt.",
            [(total(rate("harmony_engine_steps_total"), "instance", "model"), "{{model}} {{instance}}")],
        ),
        (
            "Tokens a step",
            units.Short,
            "Tokens put through the model at a time.",
            [(share(rate("harmony_engine_evaluated_total"), rate("harmony_engine_steps_total")), "{{instance}}")],
        ),
        (
            "The engine's thread",
            units.PercentUnit,
            "Share of its time: decoding (llama.cpp), sampling (masks and draws), splitting. The rest is idle.",
            [(total(rate("harmony_engine_seconds_total"), "instance", "part"), "{{part}} {{instance}}")],
        ),
        (
            "Guesses that were right",
            units.PercentUnit,
            "With draft_model alone: of the tokens guessed ahead, those that were right.",
            [(share(rate("harmony_engine_accepted_total"), rate("harmony_engine_drafted_total")), "{{instance}}")],
        ),
    ],
    "Engine: vLLM": [
        (
            "KV cache in use",
            units.PercentUnit,
            "Near 100 %: requests wait, or are set back.",
            [(metric("vllm:kv_cache_usage_perc"), "{{instance}} {{engine}}")],
        ),
        (
            "Preemptions",
            units.Short,
            "A second: replies set back because the KV cache was full.",
            [(total(rate("vllm:num_preemptions_total"), "instance"), "{{instance}}")],
        ),
    ],
    "Cache": [
        (
            "Prompt tokens from the cache",
            units.PercentUnit,
            "Share of prompt tokens that needed no evaluation.",
            [
                (
                    share(
                        rate("harmony_tokens_total", 'kind="prompt_cached"'),
                        rate("harmony_tokens_total", 'kind="prompt"'),
                    ),
                    "{{instance}}",
                ),
                (share(rate("vllm:prefix_cache_hits_total"), rate("vllm:prefix_cache_queries_total")), "{{instance}}"),
            ],
        ),
        (
            "Hits and evictions, llama.cpp",
            units.Short,
            "A second: prompts that went on from what was known, and prompts pushed out of the context.",
            [
                (total(rate("harmony_prompt_cache_hits_total"), "instance"), "hits {{instance}}"),
                (total(rate("harmony_prompt_cache_evictions_total"), "instance"), "evictions {{instance}}"),
            ],
        ),
        (
            "Main memory of the cache, llama.cpp",
            units.BytesIEC,
            "What prompts take that were pushed out of the context; cache_ram_mb is the most.",
            [(total(metric("harmony_prompt_cache_bytes"), "instance", "model"), "{{model}} {{instance}}")],
        ),
    ],
}


def graph(title: str, unit: str, description: str, queries: list[Query]) -> timeseries.Panel:
    """One panel, half as wide as the page."""
    made = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .min(0)
        .span(12)
        .height(8)
        .legend(common.VizLegendOptions().display_mode(LegendDisplayMode.LIST).show_legend(True))
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    )
    for letter, (expression, legend) in zip(ascii_uppercase, queries, strict=False):
        made.with_target(prometheus.Dataquery().ref_id(letter).expr(expression).legend_format(legend).range())
    return made


def variable(name: str, values: str) -> dashboard.QueryVariable:
    """Values of a label; several, or all, can be chosen."""
    return (
        dashboard.QueryVariable(name)
        .label(name.capitalize())
        .datasource(SOURCE)
        .query(values)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(VariableOption(text="All", value="$__all"))
    )


def text() -> str:
    """The dashboard, as the file has it."""
    made = (
        dashboard.Dashboard("Harmony")
        .uid("harmony-plugin")
        .description("gpt-oss behind harmony-plugin: the llama.cpp server, and vLLM with the plugin.")
        .tags(["harmony", "gpt-oss", "vllm", "llama.cpp"])
        .editable()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .time("now-3h", "now")
        .refresh("30s")
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(variable("job", f"label_values({SERVERS}}}, job)"))
        .with_variable(variable("instance", f'label_values({SERVERS}, job=~"$job"}}, instance)'))
    )
    number = 0
    for row, panels in ROWS.items():
        number += 1
        made.with_row(dashboard.Row(row).id(number))
        for panel in panels:
            number += 1
            made.with_panel(graph(*panel).id(number))
    return JSONEncoder(sort_keys=True, indent=2).encode(made.build()) + "\n"


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        FILE.write_text(text(), encoding="utf-8")
    else:
        print(text(), end="")
