"""Split a folder of gpt-oss outputs over a Ray cluster: Parquet or JSON Lines, token ids or text.

    python examples/ray_split.py replies/ split/                    # this machine
    python examples/ray_split.py s3://bucket/replies s3://bucket/split --address auto

Each file comes out under its own name, its rows with the fields of their replies. Start it again after an interruption:
files that are done are passed over. How replies are split, `HARMONY_*` says (docs/settings.md).
"""

from __future__ import annotations

import argparse
import time

import ray

from harmony_plugin.ray import Columns
from harmony_plugin.ray.folders import split_folder


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", help="the folder of replies, a path or a URI that every node can read")
    parser.add_argument("target", help="the folder to write to")
    parser.add_argument("--address", help="the cluster; none: a new one on this machine")
    parser.add_argument(
        "--output", default=Columns.output, help="the column of the model's output (default: %(default)s)"
    )
    parser.add_argument("--prompt", default=Columns.prompt, help="the column of the prompt (default: %(default)s)")
    parser.add_argument(
        "--tools", default=Columns.tools, help="the column of the request's tools (default: %(default)s)"
    )
    arguments = parser.parse_args()
    ray.init(address=arguments.address)

    began = told = time.monotonic()
    files = replies = skipped = issues = 0
    for done in split_folder(
        arguments.source, arguments.target, columns=Columns(arguments.output, arguments.prompt, arguments.tools)
    ):
        files, replies, issues = files + 1, replies + done.replies, issues + done.issues
        skipped += done.skipped
        if time.monotonic() > told + 10:
            told = time.monotonic()
            print(f"{files} files, {replies} replies, {replies / (told - began):.0f} a second", flush=True)
    print(f"{files} files ({skipped} done before), {replies} replies, {issues} of them with issues")


if __name__ == "__main__":
    main()
