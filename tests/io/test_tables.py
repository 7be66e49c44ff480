"""Tables, read back by pyarrow and by Python's own csv."""

import csv

import numpy as np
import pytest
from pyarrow import parquet

from cellseg_pipe.io.tables import read_table, write_table

COLUMNS = {
    "label": np.array([1, 70_000, 2**32 - 1], np.uint32),
    "area_px": np.array([0.1, np.nan, 1e-7]),
    "image": np.array(["a, b", 'c"d', "µ"]),
    "edge": np.array([True, False, True]),
}


def test_parquet_keeps_types(tmp_path):
    write_table(tmp_path / "a.PARQUET", COLUMNS)
    table = parquet.read_table(tmp_path / "a.PARQUET")
    kinds = {field.name: str(field.type) for field in table.schema}
    assert kinds == {"label": "uint32", "area_px": "double", "image": "string", "edge": "bool"}
    assert table["label"].to_pylist() == COLUMNS["label"].tolist()
    found = read_table(tmp_path / "a.PARQUET")
    for name, column in COLUMNS.items():
        np.testing.assert_array_equal(found[name], column)


def test_csv_is_that_of_others(tmp_path):
    write_table(tmp_path / "a.csv", COLUMNS)
    with open(tmp_path / "a.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(COLUMNS)
    assert [row["image"] for row in rows] == COLUMNS["image"].tolist()
    assert [int(row["label"]) for row in rows] == COLUMNS["label"].tolist()
    np.testing.assert_array_equal([float(row["area_px"]) for row in rows], COLUMNS["area_px"])
    found = read_table(tmp_path / "a.csv")
    assert found["label"].dtype == np.int64
    for name, column in COLUMNS.items():
        np.testing.assert_array_equal(found[name], column)


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_a_table_of_no_cells_has_its_columns(tmp_path, name):
    write_table(tmp_path / name, {key: column[:0] for key, column in COLUMNS.items()})
    found = read_table(tmp_path / name)
    assert list(found) == list(COLUMNS)
    assert all(column.size == 0 for column in found.values())


def test_what_is_no_table_leaves_the_old_one(tmp_path):
    write_table(tmp_path / "a.csv", COLUMNS)
    before = (tmp_path / "a.csv").read_bytes()
    with pytest.raises(ValueError, match="one length, got {'x': 2, 'y': 3}"):
        write_table(tmp_path / "a.csv", {"x": np.arange(2), "y": np.arange(3)})
    assert (tmp_path / "a.csv").read_bytes() == before
    (tmp_path / "b.parquet").write_bytes(before)
    with pytest.raises(ValueError, match="cannot be read as a table") as caught:
        read_table(tmp_path / "b.parquet")
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"\.csv or \.parquet, got c\.txt"):
        read_table(tmp_path / "c.txt")
    with pytest.raises(FileNotFoundError):
        read_table(tmp_path / "c.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "b.parquet"]
