"""`harmony-plugin verify` over the four servers: ours, and the stock ones, with a model that answers as it should.

python -m conformance.endpoints --write    # the table in docs/verify.md
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "rigs")]

from ports import free_port  # noqa: E402
from scripts.generated import Part  # noqa: E402
from verify_rig import write_answers  # noqa: E402
from vllm_rig.server import PARSERS, Launch, running  # noqa: E402

from harmony_plugin.demo.model import build_model  # noqa: E402
from harmony_plugin.demo.process import ServerProcess  # noqa: E402

PART = Part(ROOT / "docs" / "verify.md", "conformance/endpoints.py")
STOCK_PARSERS = (*("--reasoning-parser", "openai_gptoss", "--tool-call-parser", "openai", "--enable-auto-tool-choice"),)
MODEL = ("--n_ctx", "8192", "--n_threads", "1", "--n_threads_batch", "1")
APIS = ("chat", "responses", "messages")
SHORT = {"holds": "ok", "fails": "**fails**", "cannot tell": "?", "not served": "–"}


@contextmanager
def ours(folder: Path, script: Path) -> Iterator[str]:
    flags = ["-m", "harmony_plugin.demo.server", "--script", str(script), "--model", str(build_model()), *MODEL]
    with ServerProcess(flags) as server:
        yield server.url


@contextmanager
def stock_llamacpp(folder: Path, script: Path) -> Iterator[str]:
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "conformance.stock_llama_server",
        str(script),
        "--model",
        str(build_model()),
        *MODEL,
    ]
    with (folder / "stock.log").open("w") as log:
        process = subprocess.Popen([*command, "--port", str(port)], stdout=log, stderr=log, cwd=ROOT)
        try:
            url = f"http://127.0.0.1:{port}"
            for _ in range(600):
                try:
                    urllib.request.urlopen(f"{url}/v1/models", timeout=5).close()
                    break
                except OSError:
                    time.sleep(0.2)
            yield url
        finally:
            process.terminate()
            process.wait(30)


def vllm(parsers: tuple[str, ...]) -> Callable[[Path, Path], Any]:
    @contextmanager
    def server(folder: Path, script: Path) -> Iterator[str]:
        answers = ("VLLM_RIG_ANSWERS", str(script))
        with running(Launch(parsers=parsers, environment=(answers,)), folder / "vllm.log") as started:
            yield started.url

    return server


#: Each takes a folder to write into, and the scripts of what the model says.
SERVERS: dict[str, Callable[[Path, Path], Any]] = {
    "llama.cpp, ours": ours,
    "llama.cpp, stock": stock_llamacpp,
    "vLLM, plugin": vllm(PARSERS),
    "vLLM, stock": vllm(STOCK_PARSERS),
}


def verified(url: str, folder: Path) -> dict[str, Any]:
    """What `verify` finds."""
    report = folder / "report.json"
    command = [sys.executable, "-m", "harmony_plugin.verify", url, "--json", str(report), "--passes", "1"]
    done = subprocess.run([*command, "--max-tokens", "1024"], capture_output=True, text=True, check=False)
    print(done.stdout[-3000:], done.stderr[-1000:], flush=True)
    return dict(json.loads(report.read_text("utf-8")))


def table(found: dict[str, dict[str, Any]]) -> str:
    """Markdown: a check a row, for what does not hold everywhere; and what fails, in words."""
    rows: dict[str, dict[str, dict[str, str]]] = {}
    details = []
    for name, report in found.items():
        for each in report["checks"]:
            rows.setdefault(each["name"], {}).setdefault(name, {})[each["api"]] = each["result"]
            if each["result"] == "fails":
                detail = " ".join(str(each["detail"]).split())[:240]
                details.append(f"- {name}: `{each['name']}`, {each['api']}: `` {detail} ``")
    counts = [
        f"{report['counts'].get('holds', 0)} hold, {report['counts'].get('fails', 0)} fail" for report in found.values()
    ]
    lines = [f"| check | {' | '.join(found)} |", f"| --- |{' --- |' * len(found)}"]
    same = []
    for check, row in rows.items():
        cells = [_cell(row.get(name, {})) for name in found]
        if set(cells) == {"ok"}:
            same.append(f"`{check}`")
        else:
            lines.append(f"| `{check}` | {' | '.join(cells)} |")
    lines += [f"| all | {' | '.join(counts)} |", "", f"On all four hold {', '.join(same)}. What fails:", ""]
    return "\n".join([*lines, *details, ""])


def _cell(results: dict[str, str]) -> str:
    """What came of a check, on the APIs that are served."""
    served = {api: result for api, result in results.items() if result != "not served"}
    if len(set(served.values())) <= 1:
        return SHORT[next(iter(served.values()), "not served")]
    return ", ".join(f"{api} {SHORT[result]}" for api, result in served.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the table into docs/verify.md")
    parser.add_argument("--only", action="append", choices=[*SERVERS], help="this server alone")
    arguments = parser.parse_args()
    found = {}
    for name, server in SERVERS.items():
        if arguments.only and name not in arguments.only:
            continue
        print(f"== {name}", flush=True)
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            with server(folder, write_answers(folder / "answers.jsonl")) as url:
                found[name] = verified(url, folder)
    told = table(found)
    print(told)
    if arguments.write:
        PART.write(told)


if __name__ == "__main__":
    main()
