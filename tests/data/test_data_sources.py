from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mope.data.load import read_examples
from mope.errors import DataError

ROW = {"prompt": "p", "response_tokens": 1}


def test_a_folder_gives_its_data_files_in_order_and_says_what_it_left(write: Any, tmp_path: Path) -> None:
    write("d/b.jsonl", [ROW])
    write("d/a.csv", [ROW])
    write("d/deep/c.parquet", [ROW])
    write("d/.hidden/x.jsonl", [ROW])
    (tmp_path / "d/README.md").write_text("hello")
    (tmp_path / "d/dataset_infos.json").write_text("{}")
    data = read_examples([tmp_path / "d"])
    assert data.sources == ["a", "b", "c"]
    assert data.notes == [f"{tmp_path / 'd'}: 2 files of other formats were left alone"]


def test_a_saved_dataset_inside_a_folder_is_read_as_one(write: Any, tmp_path: Path) -> None:
    import datasets

    write("d/b.jsonl", [ROW])
    half = datasets.Dataset.from_list([ROW])
    datasets.DatasetDict(train=half, test=half).save_to_disk(str(tmp_path / "d/saved"))
    assert read_examples([tmp_path / "d"]).sources == ["b", "saved", "saved"]


def test_the_same_file_named_twice_is_read_once(write: Any, tmp_path: Path) -> None:
    path = write("d/b.jsonl", [ROW])
    assert len(read_examples([path, str(path), tmp_path / "d"])) == 1


def test_a_folder_without_data_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match="holds no data"):
        read_examples([tmp_path])


def test_a_missing_file_beside_others_is_not_taken_for_a_hub_id(
    write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("d/b.jsonl", [ROW])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="d/c does not exist"):
        read_examples(["d/c"])


def test_a_missing_extra_is_named(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from mope import extras
    from mope.errors import MissingExtra

    path = write("a.parquet", [ROW])
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"mope-llm\[data\]"):
        read_examples([path])
