"""`python -m harmony_plugin.demo.server --script FILE.jsonl ...`: the real server, its sampling scripted.

Everything is `python -m harmony_plugin.llamacpp` except that the chat handler is given `Scripts.processors`; see
`harmony_plugin.demo.script` for how a request chooses its script. Malformed replies can only be replayed with
`--headers free` (constrained headers would not let them be sampled), so that is the default here; so is temperature 0,
since nothing is left to chance.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ..llamacpp import ProcessorFactory
from ..llamacpp.server.run import main as serve
from ..llamacpp.server.settings import Flags, SettingsError
from .script import RECORDED, Scripts

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the scripted server until it is told to stop."""
    parser = Flags(prog="python -m harmony_plugin.demo.server", description=__doc__.split("\n")[0])
    parser.add_argument("--script", nargs="+", default=[str(RECORDED)], help="JSON lines of recorded replies.")

    def hook(arguments: argparse.Namespace) -> ProcessorFactory:
        try:
            return Scripts.load(*arguments.script).processors
        except (OSError, ValueError) as error:
            raise SettingsError(f"script: {error}") from error

    given = list(sys.argv[1:] if argv is None else argv)
    if not any(flag.startswith("--config_file") for flag in given):  # that replaces the flags
        given = ["--headers", "free", "--temperature", "0", *given]
    serve(given, parser=parser, hook=hook)


if __name__ == "__main__":
    main()
