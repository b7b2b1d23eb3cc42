"""`python -m conformance [SUITE ...]`: run the public suites through everything, each writes its part of the document.

docs/conformance.md keeps the parts of suites that were not run.
The exit status is 1 if ours fails anything without a reason written down in the suite's module.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import re
import sys
from pathlib import Path

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "conformance.md"
SUITES = ("fixtures", "transport", "openresponses")
"""The modules with a `run`, in the document's order."""

_OPENING = """# Conformance

Written by `make conformance` (`python -m conformance`): within a part, everything was asked the same in one run.
Beside it: [what clients see of four servers](verify.md#four-servers).
"""
_PACKAGES = ("canitoolcall", "oss-harmony", "vllm", "llama_cpp_python", "openai", "anthropic")


def parts(text: str) -> dict[str, str]:
    """What the document has of each suite."""
    found = re.split(r"^<!-- (\w+) -->\n", text, flags=re.MULTILINE)
    return dict(zip(found[1::2], found[2::2], strict=True))


def versions() -> str:
    named = []
    for name in _PACKAGES:
        try:
            named.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            named.append(f"{name}: not installed")
    return "; ".join(named)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m conformance", description=__doc__)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"of {', '.join(SUITES)}; default: all")
    parser.add_argument("--all", action="store_true", help="BFCL: every case through the servers, not a sample (hours)")
    options = parser.parse_args()
    if unknown := set(options.suites) - set(SUITES):
        parser.error(f"no such suite: {', '.join(sorted(unknown))}")
    written = parts(DOCUMENT.read_text("utf-8")) if DOCUMENT.exists() else {}
    bad: list[str] = []
    for suite in options.suites or SUITES:
        text, wrong = importlib.import_module(f"conformance.{suite}").run(every=options.all)
        written[suite] = f"\n{text}\nRan with {versions()}.\n\n"
        bad += [f"{suite}: {line}" for line in wrong]
        sections = (f"<!-- {name} -->\n{written[name]}" for name in SUITES if name in written)
        DOCUMENT.write_text(f"{_OPENING}\n{''.join(sections).rstrip()}\n", encoding="utf-8")
        print(f"wrote {suite}'s part of {DOCUMENT.relative_to(DOCUMENT.parent.parent)}", file=sys.stderr)
    for line in bad:
        print(f"not explained: {line}", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
