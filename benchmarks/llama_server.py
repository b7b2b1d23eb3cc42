"""llama.cpp's own `llama-server`, built from the sources that come with llama-cpp-python: the same llama.cpp, in C++.

The source distribution of the installed llama-cpp-python is fetched by pip, and `llama-server` is built from the
llama.cpp sources in it, with the options that llama-cpp-python's own build has: ggml's defaults for this machine, no
web UI, no TLS. Everything is kept in the user's cache folder: the first call takes 10 minutes or more on two cores,
later ones nothing. Only benchmarks use it; nothing depends on it.

    python benchmarks/llama_server.py [--jobs 2]      # builds it and prints where it is
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from harmony_plugin.demo.model import cache_folder

__all__ = ["BuildError", "build", "example", "sources"]

DISTRIBUTION = "llama_cpp_python"
OPTIONS = {
    "CMAKE_BUILD_TYPE": "Release",
    "LLAMA_BUILD_APP": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_UI": "OFF",  # would want npm
    "LLAMA_USE_PREBUILT_UI": "OFF",  # would download it
    "LLAMA_OPENSSL": "OFF",
}


class BuildError(RuntimeError):
    """It cannot be built here; the message is one line that says what to do, and then what was printed last."""


def build(jobs: int | None = None) -> Path:
    """The path of `llama-server`, of the llama.cpp that the installed llama-cpp-python has.

    :param jobs: compilers to run at the same time; default: one for each processor.
    :raises BuildError: something is missing, or went wrong.
    """
    folder = _folder()
    binary = folder / "build" / "bin" / "llama-server"
    done = folder / "done"
    if done.exists() and binary.exists():
        return binary
    for tools, what in (
        (("cmake",), "cmake"),
        (("ninja", "make"), "ninja or make"),
        (("c++", "g++", "clang++"), "a C++ compiler"),
    ):
        if not any(map(shutil.which, tools)):
            raise BuildError(f"building llama-server needs {what} on the PATH")
    source = sources()
    jobs = jobs or os.cpu_count() or 1
    _say(f"building llama-server in {folder} with {jobs} jobs, once: this takes 10 minutes or more")
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    options = [f"-D{name}={value}" for name, value in OPTIONS.items()]
    _run("cmake", "-S", str(source), "-B", str(folder / "build"), *generator, *options)
    # Shown as it comes: it is long.
    command = ["cmake", "--build", str(folder / "build"), "--target", "llama-server", "--parallel", str(jobs)]
    if subprocess.run(command, stdout=sys.stderr).returncode or not binary.exists():
        raise BuildError(f"llama-server could not be built; to see why: {' '.join(command)}")
    done.touch()
    return binary


def sources() -> Path:
    """llama.cpp's sources, as they come with the installed llama-cpp-python; fetched if they are not there yet.

    :raises BuildError: pip could not fetch them.
    """
    return _unpacked("source", "vendor/llama.cpp")


def example() -> Path:
    """The folder of llama-cpp-python's example server, as it comes with the installed version's sources.

    :raises BuildError: pip could not fetch them.
    """
    return _unpacked("example", "examples/server")


def _unpacked(name: str, path: str) -> Path:
    folder = _folder()
    if (folder / name).exists():
        return folder / name
    version = importlib.metadata.version(DISTRIBUTION)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        _say(f"fetching the sources of {DISTRIBUTION} {version}")
        wanted = f"{DISTRIBUTION}=={version}"
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
        _run(*pip, "--no-deps", "--no-binary", DISTRIBUTION, "--dest", temporary, wanted)
        (archive,) = Path(temporary).glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            inside = [member for member in tar if f"{version}/{path}/" in member.name]
            tar.extractall(temporary, inside, filter="data")
        (unpacked,) = Path(temporary).glob(f"*/{path}")
        unpacked.rename(folder / name)
    return folder / name


def _folder() -> Path:
    return cache_folder() / f"llama-server-{importlib.metadata.version(DISTRIBUTION)}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _run(*command: str) -> None:
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    if result.returncode:
        tail = "\n".join(result.stdout.splitlines()[-20:])
        raise BuildError(f"{Path(command[0]).name} ended with status {result.returncode}: {' '.join(command)}\n{tail}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, help="compilers to run at the same time; default: one for each processor")
    try:
        print(build(parser.parse_args().jobs))
    except BuildError as error:
        raise SystemExit(f"llama_server: {error}") from None


if __name__ == "__main__":
    main()
