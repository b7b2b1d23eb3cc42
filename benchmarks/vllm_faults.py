"""Puts vLLM's own gpt-oss parser and the plugin side by side on outputs that stock vLLM gets wrong; prints a table.

Both run here and now: a real `vllm serve` with vLLM's parsers, then one with the plugin's, the same scripted outputs
through /v1/chat/completions, /v1/responses and /v1/messages, whole and streamed. A cell is right when the reply is the
one written in `tests/rigs/vllm_rig/faults.py`.

    .venv/bin/python benchmarks/vllm_faults.py              # the table, as Markdown
    .venv/bin/python benchmarks/vllm_faults.py --detail     # and what each wrong reply was
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "rigs"))

from vllm_rig.faults import ALL, Fault
from vllm_rig.replies import APIS, Clients, Told, comparable, gather_bounded
from vllm_rig.server import PARSERS, STOCK_PARSERS, Launch, running

Seen = dict[tuple[str, str, bool], Told | BaseException]


async def ask_all(url: str) -> Seen:
    """Every fault through every API, whole and streamed."""
    keys = [(fault, api, stream) for fault in ALL for api in APIS for stream in (False, True)]
    async with Clients(url) as clients:
        jobs = [
            clients.ask(api, fault.script, stream=stream, **fault.options(api))  # type: ignore[arg-type]
            for fault, api, stream in keys
        ]
        results = await gather_bounded(jobs, at_once=16)
    return {(fault.name, api, stream): result for (fault, api, stream), result in zip(keys, results, strict=True)}


def is_right(fault: Fault, api: Any, stream: bool, got: Told | BaseException) -> bool:
    if isinstance(got, BaseException):
        return False
    return comparable(got.fields, api, stream) == comparable(fault.fields, api, stream)


def cells(fault: Fault, seen: Seen) -> list[str]:
    """One cell an API: whole / streamed."""
    marks = {True: "ok", False: "**wrong**"}
    texts = []
    for api in APIS:
        whole, streamed = (
            marks[is_right(fault, api, stream, seen[fault.name, api, stream])] for stream in (False, True)
        )
        texts.append(whole if whole == streamed else f"{whole} / {streamed}")
    return texts


def table(stock: Seen, plugin: Seen) -> str:
    lines = [
        "| stock vLLM's fault | stock: chat | responses | messages | plugin: chat | responses | messages |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for fault in ALL:
        what = fault.what.replace("|", r"\|")  # a table's cell ends at a bare one, even in code
        lines.append("| " + " | ".join([what, *cells(fault, stock), *cells(fault, plugin)]) + " |")
    for name, seen in (("stock", stock), ("plugin", plugin)):
        right = sum(
            is_right(fault, api, stream, seen[fault.name, api, stream])
            for fault in ALL
            for api in APIS
            for stream in (False, True)
        )
        lines.append(f"\n{name}: {right} of {len(ALL) * len(APIS) * 2} replies right")
    return "\n".join(lines)


def show_wrong(name: str, seen: Seen) -> None:
    for fault in ALL:
        for api in APIS:
            for stream in (False, True):
                got = seen[fault.name, api, stream]
                if not is_right(fault, api, stream, got):
                    said = repr(got) if isinstance(got, BaseException) else got.fields
                    print(f"{name} {fault.name} {api} {'streamed' if stream else 'whole'}:\n  {said}\n  {fault.fields}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--detail", action="store_true", help="print every wrong reply with the right one")
    parser.add_argument("--only", choices=("stock", "plugin"), help="one of the two, for work on the scripts")
    arguments = parser.parse_args()
    seen: dict[str, Seen] = {}
    with tempfile.TemporaryDirectory() as logs:
        for name, parsers in (("stock", STOCK_PARSERS), ("plugin", PARSERS)):
            if arguments.only in (None, name):
                print(f"starting vllm serve ({name}) ...", file=sys.stderr)
                with running(Launch(parsers=parsers), Path(logs) / f"{name}.log") as server:
                    seen[name] = asyncio.run(ask_all(server.url))
    if arguments.detail or arguments.only:
        for name, results in seen.items():
            show_wrong(name, results)
    if not arguments.only:
        import vllm

        print(f"vLLM {vllm.__version__}; whole / streamed where they differ\n")
        print(table(seen["stock"], seen["plugin"]))


if __name__ == "__main__":
    main()
