"""Evaluated prompts on disk, one file each, that survive a restart.

Only what the same model left, in a context of the same kind, is read; a file that is damaged or foreign is ignored,
with one line in the log. Files are written by a thread of their own. Knows bytes; knows nothing of sequences.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import struct
import tempfile
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from .ids import Ids

__all__ = ["DiskCache", "File", "Saved"]

log = logging.getLogger("harmony_plugin.llamacpp")

MAGIC = b"HARMONY-PROMPT-1\n"
SUFFIX = ".prompt"
HEAD = struct.Struct("<II")  # the header's length, and the checksum of all behind the header


class Saved(NamedTuple):
    """Ids, how many of them were a prompt, what the windowed layers need by place, and the state."""

    ids: Ids
    prompt: int
    checkpoints: Mapping[int, bytes]
    state: bytes


class File(NamedTuple):
    """What is known of a file without reading all of it; ``checkpoints``: where there are some."""

    path: Path
    ids: Ids
    prompt: int
    checkpoints: Mapping[int, int]
    size: int


class DiskCache:
    """A folder of prompts.

    Args:
        folder: made if need be, for this user alone: the files hold what was said.
        size: most bytes; the files used longest ago go first.
        model: what must be the same for a file to be of use.

    Raises:
        OSError: the folder cannot be made.
    """

    def __init__(self, folder: Path, size: int, model: Mapping[str, object]) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._size = size
        self._model = json.dumps(model, sort_keys=True)
        self._known: dict[Path, File] = {}
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="prompts")
        for path in sorted(folder.glob(f"*{SUFFIX}"), key=lambda one: one.stat().st_mtime):
            try:
                with open(path, "rb") as file:
                    header, _ = _header(file)
                    if header["model"] != self._model:
                        continue  # another model's, which may come back
                    places = {int(at): int(length) for at, length in header["checkpoints"]}
                    size = path.stat().st_size
                    self._known[path] = File(path, Ids(header["ids"]), int(header["prompt"]), places, size)
            except (OSError, ValueError, KeyError, TypeError) as error:
                log.warning("prompt cache: %s is ignored: %s", path.name, error)

    @property
    def files(self) -> tuple[File, ...]:
        """What is there."""
        return tuple(self._known.values())

    def load(self, known: File) -> Saved | None:
        """What is in a file; None: it is damaged or gone."""
        path = known.path
        try:
            with open(path, "rb") as file:
                _, checksum = _header(file)
                data = file.read()
            if zlib.crc32(data) != checksum:
                raise ValueError("its contents are damaged")
            os.utime(path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("prompt cache: %s is ignored: %s", path.name, error)
            self._known.pop(path, None)
            return None
        checkpoints, place = {}, 0
        for at, length in known.checkpoints.items():
            checkpoints[at] = data[place : place + length]
            place += length
        return Saved(known.ids, known.prompt, checkpoints, data[place:])

    def keep(self, saved: Saved) -> None:
        """Write a file, soon; the oldest go where there are too many bytes."""
        ids = saved.ids.view().tolist()
        name = hashlib.blake2b(f"{self._model} {ids}".encode(), digest_size=16).hexdigest()
        path = self._folder / f"{name}{SUFFIX}"
        places = {at: len(state) for at, state in saved.checkpoints.items()}
        size = sum(places.values()) + len(saved.state)
        if path in self._known or size > self._size:
            return
        header = {
            "model": self._model,
            "ids": ids,
            "prompt": saved.prompt,
            "checkpoints": list(places.items()),
        }
        self._known[path] = File(path, saved.ids, saved.prompt, places, size)
        while sum(file.size for file in self._known.values()) > self._size:
            oldest = next(iter(self._known))
            del self._known[oldest]
            self._writer.submit(oldest.unlink, missing_ok=True)
        self._writer.submit(self._write, path, header, b"".join((*saved.checkpoints.values(), saved.state)))

    def close(self) -> None:
        """Wait for what is being written."""
        self._writer.shutdown(wait=True)

    def _write(self, path: Path, header: Mapping[str, object], data: bytes) -> None:
        text = json.dumps(header).encode()
        temporary = ""
        try:
            handle, temporary = tempfile.mkstemp(dir=self._folder, suffix=".part")
            with open(handle, "wb") as file:
                file.write(MAGIC + HEAD.pack(len(text), zlib.crc32(data)) + text + data)
            os.replace(temporary, path)
        except OSError as error:
            log.warning("prompt cache: cannot write %s: %s", path.name, error.strerror or error)
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            self._known.pop(path, None)


def _header(file: BinaryIO) -> tuple[dict[str, Any], int]:
    """What stands in front of a file's data, and the data's checksum.

    Raises:
        ValueError: it is no such file.
    """
    begin = file.read(len(MAGIC) + HEAD.size)
    if not begin.startswith(MAGIC) or len(begin) < len(MAGIC) + HEAD.size:
        raise ValueError("it is no prompt that this server wrote")
    length, checksum = HEAD.unpack(begin[len(MAGIC) :])
    header = json.loads(file.read(length))
    if not isinstance(header, dict):
        raise ValueError("it is no prompt that this server wrote")
    return header, checksum
