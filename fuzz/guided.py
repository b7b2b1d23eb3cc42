"""Coverage-guided fuzzing (atheris): libFuzzer looks for bytes that reach new branches of the core.

``python -m fuzz.guided ids|text [libFuzzer options] CORPUS`` runs one in this process; `run_all` runs both, each in a
process of its own (libFuzzer ends the process it runs in). Bytes become an output by a fixed table, so that one byte
is a marker or a header word, and libFuzzer can move them about; the promises are checked as in mutation fuzzing.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from random import Random

CORPUS = Path(__file__).parent / "corpus"


def _output(data: bytes) -> tuple[list[tuple[str, str | int]], int]:
    """Pieces of an output, and a seed for the rest: one byte is a marker, a header word, an inked word or a token."""
    from .mutation import _HEADER_WORDS
    from .transcript import marker, text
    from .vocabulary import KINDS

    pieces: list[tuple[str, str | int]] = []
    seed = data[0] if data else 0
    place, ink = 1, 0
    while place < len(data):
        value = data[place]
        place += 1
        if value < 64:
            pieces.append(marker(KINDS[value % len(KINDS)]))
        elif value < 160:
            pieces.append(text(_HEADER_WORDS[(value - 64) % len(_HEADER_WORDS)]))
        elif value < 200:
            ink += 1
            pieces.append(text(f" 0Q{ink}Z"))
        elif value < 215:
            pieces.append(text("x" * (8 << value % 7)))
        elif value < 230:
            size = min(value - 214, len(data) - place)
            pieces.append(text(data[place : place + size].decode("utf-8", "replace")))
            place += size
        else:
            token = int.from_bytes(data[place : place + 3], "little")
            place += 3
            pieces.append(("id", token % 256 if value < 236 else 199990 + token % 1200 if value < 244 else token - 10))
    return pieces, seed


def one(data: bytes, as_text: bool) -> None:
    """Check one input. Raises what it finds."""
    from .mutation import setting, try_pieces

    pieces, seed = _output(data)
    _, broken = try_pieces(pieces, seed, as_text, setting(Random(seed)))
    if broken:
        raise AssertionError(broken)


def explain(data: bytes, as_text: bool) -> str:
    """What an input breaks, shrunk, as mutation fuzzing tells it."""
    from .mutation import report, setting

    pieces, seed = _output(data)
    return report(pieces, seed, as_text, setting(Random(seed)))


def run_all(runs: int, seed: int) -> int:
    """Fuzz by ids and by text; how many of the two found something."""
    found = 0
    for mode in ("ids", "text"):
        with tempfile.TemporaryDirectory() as work:
            command = [sys.executable, "-m", "fuzz.guided", mode, f"-runs={runs}", f"-seed={seed + 1}", "-max_len=400"]
            command += ["-close_fd_mask=0", f"-artifact_prefix={work}/", work]
            if CORPUS.is_dir():
                command.append(str(CORPUS))
            done = subprocess.run(
                command, cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=False
            )
            lines = (done.stdout + done.stderr).splitlines()
            last = next((line for line in reversed(lines) if "cov:" in line), "no statistics")
            if done.returncode:
                found += 1
                saved = [path.read_bytes() for path in Path(work).glob("crash-*")]
                for data in saved:
                    print(f"guided {mode}: found by {data!r}: {explain(data, mode == 'text')}")
                if not saved:
                    print(f"guided {mode}: failed", *lines[-20:], sep="\n    ")
            else:
                print(f"guided {mode}: {runs:,} inputs, seed {seed + 1}: nothing found. {last}")
    return found


def main() -> None:
    import atheris

    mode = sys.argv.pop(1)
    with atheris.instrument_imports(include=["harmony_plugin"]):
        import harmony_plugin  # noqa: F401

    from . import mutation  # noqa: F401

    atheris.Setup(sys.argv, lambda data: one(data, mode == "text"))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
