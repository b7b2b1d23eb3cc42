"""Folders split over two nodes: everything once, whatever is killed on the way."""

from __future__ import annotations

import gzip
import json
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from vllm_rig import cases

pytest.importorskip("ray", reason="Ray is not installed: make ray")

import pyarrow as pa
import pyarrow.parquet as pq
import ray
from ray.exceptions import RayTaskError

from harmony_plugin.ray import Columns, split
from harmony_plugin.ray.batches import split_batch
from harmony_plugin.ray.folders import FileSplit, split_folder

from .test_rows import TEXT, without_ids

pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.filterwarnings("ignore")]
CASES = cases.load()


def rows(numbers: range) -> list[dict[str, Any]]:
    """Replies by their ids: the cases in turn."""
    found = []
    for number in numbers:
        case = CASES[number % len(CASES)]
        found.append({"id": number, "generated_tokens": list(case.ids), "tools": json.dumps(case.tools)})
    return found


def write_parquet(file: Path, numbers: range) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows(numbers)), file)


def write_lines(file: Path, numbers: range) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows(numbers))
    file.write_bytes(gzip.compress(text.encode()) if file.suffix == ".gz" else text.encode())


def read(folder: Path) -> list[dict[str, Any]]:
    """All rows under a folder, by their ids."""
    found: list[dict[str, Any]] = []
    for file in folder.rglob("*.*"):
        if file.suffix == ".parquet":
            found += pq.read_table(file).to_pylist()
        else:
            data = file.read_bytes()
            text = gzip.decompress(data) if file.suffix == ".gz" else data
            found += [json.loads(line) for line in text.splitlines()]
    return sorted(found, key=lambda row: row["id"])


def check(folder: Path, count: int) -> None:
    """Each id once, with the fields of its case."""
    found = read(folder)
    assert [row["id"] for row in found] == list(range(count))
    for row in found:
        got = (row["reasoning_content"], row["content"], without_ids(row["tool_calls"]))
        assert got == CASES[row["id"] % len(CASES)].expected


def test_parquet_and_lines_come_out_under_their_names(tmp_path: Path) -> None:
    write_parquet(tmp_path / "in" / "a.parquet", range(1500))
    write_lines(tmp_path / "in" / "below" / "b.jsonl", range(1500, 1600))
    write_lines(tmp_path / "in" / "below" / "c.jsonl.gz", range(1600, 1700))
    (tmp_path / "in" / "notes.txt").write_text("no replies")
    done = list(split_folder(str(tmp_path / "in"), str(tmp_path / "out")))
    assert sorted((each.file, each.replies) for each in done) == [
        ("a.parquet", 1500),
        ("below/b.jsonl", 100),
        ("below/c.jsonl.gz", 100),
    ]
    assert all(0 < each.issues < each.replies for each in done)
    check(tmp_path / "out", 1700)


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    for number in range(3):
        write_parquet(tmp_path / "in" / f"{number}.parquet", range(number * 10, number * 10 + 10))
    first = list(split_folder(str(tmp_path / "in"), str(tmp_path / "out")))
    (tmp_path / "out" / "1.parquet").unlink()
    half = tmp_path / "out" / ".harmony-part-0123-1.parquet"
    half.write_bytes(b"PAR1")
    times = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("[02].parquet")}
    again = list(split_folder(str(tmp_path / "in"), str(tmp_path / "out")))
    assert not any(each.skipped for each in first)
    assert again == [
        FileSplit("0.parquet", 0, 0, skipped=True),
        FileSplit("2.parquet", 0, 0, skipped=True),
        next(each for each in first if each.file == "1.parquet"),
    ]
    assert times == {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("[02].parquet")}
    assert not half.exists()
    check(tmp_path / "out", 30)


def test_a_file_that_is_no_parquet_is_named_and_leaves_no_half(tmp_path: Path) -> None:
    write_parquet(tmp_path / "in" / "a.parquet", range(10))
    (tmp_path / "in" / "b.parquet").write_bytes(b"nothing of the kind")
    with pytest.raises(RayTaskError, match=r"b\.parquet"):
        list(split_folder(str(tmp_path / "in"), str(tmp_path / "out")))
    assert {file.name for file in (tmp_path / "out").iterdir()} <= {"a.parquet"}


def test_no_folder_and_no_files_are_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(split_folder(str(tmp_path / "none"), str(tmp_path / "out")))
    (tmp_path / "in").mkdir()
    with pytest.raises(FileNotFoundError, match="parquet"):
        list(split_folder(str(tmp_path / "in"), str(tmp_path / "out")))


def test_text_and_columns_by_name(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_text(json.dumps({"id": 0, "said": TEXT}) + "\n\n")
    list(split_folder(str(tmp_path / "in"), str(tmp_path / "out"), columns=Columns(output="said")))
    (row,) = read(tmp_path / "out")
    assert (row["said"], row["content"]) == (TEXT, "4")


def test_a_killed_worker_loses_and_doubles_nothing(tmp_path: Path) -> None:
    for number in range(3):
        write_parquet(tmp_path / "in" / f"{number}.parquet", range(number * 20_000, number * 20_000 + 20_000))
    killed: list[int] = []

    def kill_one() -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if list((tmp_path / "out").glob(".harmony-part-*")):
                for process in psutil.Process().children(recursive=True):
                    if process.cmdline()[:1] == ["ray::MapWorker(Map(_Splitter)).submit"]:
                        process.kill()
                        killed.append(process.pid)
                        return
            time.sleep(0.02)

    killer = threading.Thread(target=kill_one)
    killer.start()
    done = list(split_folder(str(tmp_path / "in"), str(tmp_path / "out")))
    killer.join()
    assert killed, "no worker was seen at a file"
    assert sum(each.replies for each in done) == 60_000
    assert not list((tmp_path / "out").glob(".*")), "its half is swept"
    check(tmp_path / "out", 60_000)


def test_rows_and_batches_go_through_ray_data() -> None:
    data = ray.data.from_items(rows(range(300)), override_num_blocks=7)
    by_row = data.map(split).take_all()
    by_batch = data.map_batches(split_batch, batch_format="pyarrow").take_all()
    for found in (by_row, by_batch):
        assert [row["id"] for row in sorted(found, key=lambda row: row["id"])] == list(range(300))
        for row in found:
            got = (row["reasoning_content"], row["content"], without_ids(row["tool_calls"]))
            assert got == CASES[row["id"] % len(CASES)].expected
