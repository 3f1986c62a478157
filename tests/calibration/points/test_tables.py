"""Tables of measured points: numbers above 0, or the place where there is none."""

import gzip
from pathlib import Path

import pytest

from l4sim.calibration.points.tables import distinct, read_points, read_rows
from l4sim.errors import InputError


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_columns_come_as_numbers_from_plain_and_gzipped_files(tmp_path: Path) -> None:
    plain = write(tmp_path / "a.csv", "device,m,latency\nH200,1,0.5\nH200,2,0.75\n")
    packed = tmp_path / "a.csv.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    for path in (plain, packed):
        points = read_points(path, ("m", "latency"))
        assert points["m"].tolist() == [1, 2]
        assert points["latency"].tolist() == [0.5, 0.75]


def test_only_rows_with_the_wanted_text(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "kind,m\ngraph,1\neager,2\ngraph,3\n")
    assert read_points(path, ("m",), only={"kind": "graph"})["m"].tolist() == [1, 3]
    with pytest.raises(InputError, match=r"a\.csv: no rows with kind other"):
        read_points(path, ("m",), only={"kind": "other"})


@pytest.mark.parametrize("value", ["", "fast", "0", "-1", "nan", "inf"])
def test_a_value_that_is_no_number_above_zero_is_named_with_its_line(tmp_path: Path, value: str) -> None:
    path = write(tmp_path / "a.csv", f"m,latency\n1,0.5\n2,{value}\n")
    with pytest.raises(InputError, match=rf"a\.csv, line 3: latency is '{value}', accepted is a number above 0"):
        read_points(path, ("m", "latency"))


def test_a_missing_column_is_named_with_those_found(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "m,n\n1,2\n")
    with pytest.raises(InputError, match=r"a\.csv: column k is missing, found are m, n"):
        read_points(path, ("m", "k"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"b\.csv: no such file"):
        read_points(tmp_path / "b.csv", ("m",))


def test_distinct_texts_come_in_order_of_appearance(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "layer,m\nb,1\na,2\nb,3\n")
    assert distinct(path, "layer") == ("b", "a")
    with pytest.raises(InputError, match=r"a\.csv: column kind is missing"):
        distinct(path, "kind")


def test_rows_come_as_texts_with_their_place(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "kind,m\nnew,1\nold,\n")
    assert list(read_rows(path, ("kind", "m"))) == [
        (f"{path}, line 2", {"kind": "new", "m": "1"}),
        (f"{path}, line 3", {"kind": "old", "m": ""}),
    ]


def test_a_row_that_ends_early_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "kind,m\nnew\n")
    with pytest.raises(InputError, match=r"a\.csv, line 2: m is missing, the row ends before it"):
        list(read_rows(path, ("kind", "m")))
