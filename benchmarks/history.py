"""Runs the benchmarks of splitting and keeps their figures, a line each, in history.jsonl, which the manual plots.

    python benchmarks/history.py

A line has the date, the commit, the machine, and microseconds a token by way and length, ours and the peer's.
"""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
HISTORY = HERE / "history.jsonl"
BENCHMARKS = ("core", "vllm_parsers")


def measured(benchmark: str) -> dict[str, Any]:
    """What a benchmark prints with `--json`."""
    command = [sys.executable, str(HERE / f"{benchmark}.py"), "--json"]
    return dict(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))


def main() -> None:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True, cwd=HERE
    )
    with HISTORY.open("a", encoding="utf-8") as history:
        for benchmark in BENCHMARKS:
            found = measured(benchmark)
            rows = [row for row in found["rows"] if "length" in row]
            line = {
                "benchmark": benchmark,
                "date": datetime.date.today().isoformat(),
                "commit": commit.stdout.strip(),
                "machine": found["machine"],
                "rows": [{key: row[key] for key in ("way", "length", "ours_us", "peer_us")} for row in rows],
            }
            history.write(json.dumps(line, ensure_ascii=False) + "\n")
            print(f"{benchmark}: {len(rows)} rows", file=sys.stderr)


if __name__ == "__main__":
    main()
