"""YAML without surprises. A grid's and a fleet's tests hold what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from l4sim.errors import InputError
from l4sim.specs.yaml_file import read_mapping


def test_on_and_off_are_names(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("on: off\nyes: true\n")
    assert read_mapping(path, "a: 1") == {"on": "off", "yes": True}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: 1\nb: {c: 2, c: 3}\n", r"a.yaml:2: key 'c' is given twice"),
        ("- a\n", r"a.yaml: accepted is a mapping of keys to values, such as 'a: 1'"),
        ("a: [1\n", r"a.yaml:2: "),
    ],
)
def test_what_is_no_mapping_is_refused_with_its_line(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=complaint):
        read_mapping(path, "a: 1")
