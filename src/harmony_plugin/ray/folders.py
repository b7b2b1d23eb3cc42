"""A folder of replies, split over a cluster: Parquet and JSON Lines in, the same files with their replies' fields out.

A file is the unit of work: an actor of Ray Data's reads it a batch at a time and writes it under another name, which
becomes its own when it is whole. So a file that is there is finished: tasks that are run again, and jobs that are, lose
and double nothing. Places are Arrow's (local, s3://, gs://, hdfs://). Knows nothing of how replies are split.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import posixpath
import uuid
from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import ray.data
from pyarrow import fs

from ..core import Options
from .batches import SCHEMA, split_batch
from .rows import Columns, split

__all__ = ["FileSplit", "split_folder"]

_LINES = (".jsonl", ".jsonl.gz", ".jsonl.zst")
_SUFFIXES = (".parquet", *_LINES)
_PART = ".harmony-part-"
#: Rows that a task holds at a time.
_ROWS = 1024


class FileSplit(NamedTuple):
    """A file that is done. ``file``: its path below the folder; ``issues``: how many replies have one at least;
    ``skipped``: it had been done before, and both counts are 0."""

    file: str
    replies: int
    issues: int
    skipped: bool = False


def split_folder(
    source: str, target: str, *, columns: Columns | None = None, options: Options | None = None
) -> Iterator[FileSplit]:
    """Split each ``.parquet``, ``.jsonl``, ``.jsonl.gz`` and ``.jsonl.zst`` file under a folder, on the cluster that
    Ray is connected to, or on this machine.

    Files that are in the target are not done again: call it once more after an interruption. One job at a time may
    write to a target. Have several files for each CPU, as a file is one task's.

    Args:
        source: a folder that every node can read: a path or a URI.
        target: a folder that every node can write.
        columns, options: as of `split`.

    Yields:
        Each file, as it is done.

    Raises:
        FileNotFoundError: the folder is not there, or has no such file.
        ray.exceptions.RayTaskError: a file could not be split; those that were done stay.
    """
    source, target = _uri(source), _uri(target)
    files = _files(source)
    if not files:
        raise FileNotFoundError(f"{source}: no file ends in {', '.join(_SUFFIXES)}")
    done = _swept(target)
    rest = [file for file in files if file not in done]
    yield from (FileSplit(file, 0, 0, skipped=True) for file in files if file in done)
    if not rest:
        return
    # Actors, for they keep their CPU from file to file; a task waits 0.2 s for one, as long as a small file takes.
    rows = ray.data.from_items([{"file": file} for file in rest], override_num_blocks=len(rest)).map(
        _Splitter,
        fn_constructor_args=(source, target, columns or Columns(), options),
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=len(rest)),
    )
    yield from (FileSplit(**row) for row in rows.iter_rows())
    _swept(target)


def _uri(folder: str) -> str:
    return folder.rstrip("/") if "://" in folder else os.path.abspath(folder)


def _files(folder: str, *, missing: bool = False) -> list[str]:
    """What is under a folder and could be split, by its path there."""
    system, root = fs.FileSystem.from_uri(folder)
    found = system.get_file_info(fs.FileSelector(root, recursive=True, allow_not_found=missing))
    paths = [posixpath.relpath(info.path, root) for info in found if info.type == fs.FileType.File]
    return sorted(path for path in paths if path.endswith(_SUFFIXES))


def _swept(target: str) -> set[str]:
    """The files that are done. What killed tasks and jobs left half is taken out."""
    system, root = fs.FileSystem.from_uri(target)
    found = _files(target, missing=True)
    halves = [path for path in found if posixpath.basename(path).startswith(_PART)]
    for path in halves:
        system.delete_file(posixpath.join(root, path))
    return set(found) - set(halves)


class _Splitter:
    """The actor: one file at a time, from the source to the target."""

    def __init__(self, source: str, target: str, columns: Columns, options: Options | None) -> None:
        self._reading, self._source = fs.FileSystem.from_uri(source)
        self._writing, self._target = fs.FileSystem.from_uri(target)
        self._columns, self._options = columns, options

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        file = row["file"]
        whole = posixpath.join(self._target, file)
        folder, name = posixpath.split(whole)
        # The name ends as the file's does: by it Arrow knows the compression.
        part = posixpath.join(folder, f"{_PART}{uuid.uuid4().hex}-{name}")
        self._writing.create_dir(folder, recursive=True)
        work = _split_lines if file.endswith(_LINES) else _split_parquet
        read = posixpath.join(self._source, file)
        try:
            replies, issues = work(self._reading, read, self._writing, part, self._columns, self._options)
        except Exception as error:
            with contextlib.suppress(FileNotFoundError):
                self._writing.delete_file(part)
            raise ValueError(f"{file}: {type(error).__name__}: {error}") from error
        self._writing.move(part, whole)
        return {"file": file, "replies": replies, "issues": issues}


def _split_parquet(
    reading: fs.FileSystem, file: str, writing: fs.FileSystem, part: str, columns: Columns, options: Options | None
) -> tuple[int, int]:
    replies = issues = 0
    with reading.open_input_file(file) as opened, writing.open_output_stream(part) as out:
        stored = pq.ParquetFile(opened)
        added = set(SCHEMA.names)
        kept = [field for field in stored.schema_arrow if field.name not in added]
        with pq.ParquetWriter(out, pa.schema([*kept, *SCHEMA])) as writer:
            for batch in stored.iter_batches(_ROWS):
                table = split_batch(pa.Table.from_batches([batch]), columns, options)
                writer.write_table(table)
                replies += table.num_rows
                issues += sum(bool(codes) for codes in table.column("issues").to_pylist())
    return replies, issues


def _split_lines(
    reading: fs.FileSystem, file: str, writing: fs.FileSystem, part: str, columns: Columns, options: Options | None
) -> tuple[int, int]:
    replies = issues = 0
    with reading.open_input_stream(file) as opened, writing.open_output_stream(part) as out:
        for line in io.BufferedReader(opened):
            if line.strip():
                row = split(json.loads(line), columns, options)
                out.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
                replies += 1
                issues += bool(row["issues"])
    return replies, issues
