"""The manual's plots, as SVG text: from the figures that `benchmarks/history.py` keeps. Knows that file's lines alone.

Texts and axes take the colour of the page around them, so that a plot fits a light page and a dark one.
"""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

HISTORY = Path(__file__).resolve().parent.parent / "benchmarks" / "history.jsonl"
OURS, PEER = "#3f7fdf", "#d9822b"
INK = "#010203"  # stands for the page's own colour


def plots() -> dict[str, str]:
    """Each plot by its name, of the newest run."""
    lines = [json.loads(line) for line in HISTORY.read_text("utf-8").splitlines()]
    newest = {line["benchmark"]: line for line in lines}
    return {
        "core": _by_length(newest["core"], "openai_harmony", {"streamed": "-", "whole": "--"}),
        "vllm": _by_length(newest["vllm_parsers"], "vLLM's parser", {"parse_delta": "-", "parse": "--"}),
    }


def _by_length(run: dict[str, Any], peer: str, ways: dict[str, str]) -> str:
    """Microseconds a token over the reply's length, both on scales of powers of ten."""
    with matplotlib.rc_context(
        {
            "font.family": "sans-serif",
            "font.size": 10,
            "svg.fonttype": "none",
            "svg.hashsalt": run["benchmark"],
            **dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "text.color", "xtick.color", "ytick.color"), INK),
        }
    ):
        figure = Figure(figsize=(6, 3.8), layout="constrained")
        axes = figure.subplots()
        for way, dashes in ways.items():
            rows = [row for row in run["rows"] if row["way"] == way]
            lengths = [row["length"] for row in rows]
            for name, key, colour in (("harmony-plugin", "ours_us", OURS), (peer, "peer_us", PEER)):
                axes.loglog(
                    lengths, [row[key] for row in rows], dashes, marker="o", color=colour, label=f"{name}, {way}"
                )
        axes.set_xlabel("tokens in the reply")
        axes.set_ylabel("µs a token")
        axes.grid(color=INK, alpha=0.15)
        axes.spines[["top", "right"]].set_visible(False)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axes.set_title(f"{run['machine']}, {run['date']}", fontsize=8)
        figure.legend(loc="outside lower center", ncols=2, frameon=False)
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
    svg = drawn.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    # Markdown takes it as one block: no line of it is empty.
    return re.sub(r"\s*\n\s*", " ", svg)
