"""`python -m harmony_plugin.verify URL`: the command by itself."""

from __future__ import annotations

import argparse
import sys

from . import add_arguments, run

__all__: list[str] = []

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m harmony_plugin.verify",
        description="Check an endpoint that serves gpt-oss, through the clients of OpenAI and Anthropic.",
    )
    add_arguments(parser)
    sys.exit(run(parser.parse_args()))
