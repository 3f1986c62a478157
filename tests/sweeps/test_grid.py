"""Grids from YAML and from Python: combinations, names, refusals."""

from __future__ import annotations

import numpy as np
import pytest

from l4sim.errors import InputError
from l4sim.policies.defaults import COMPARED
from l4sim.sweeps.grid import expand, grid_axes, read_grid


def read(tmp_path, text):
    path = tmp_path / "grid.yaml"
    path.write_text(text)
    return read_grid(path)


def test_all_combinations_the_last_key_changing_fastest():
    settings = expand(grid_axes({"rate_per_s": [1, 2], "seed": [0, 1], "policies": ["l4"]}))
    assert [(point["policy"], point["rate_per_s"], point["seed"]) for point in settings] == [
        ("l4", 1.0, 0),
        ("l4", 1.0, 1),
        ("l4", 2.0, 0),
        ("l4", 2.0, 1),
    ]


def test_the_command_lines_names_stand_for_those_with_units():
    axes = grid_axes({"policy": "l4", "rate": 3, "seeds": [1, 2], "synth": {"preset": "chat", "rate": 5}})
    assert axes == {
        "policy": ["l4"],
        "rate_per_s": [3.0],
        "seed": [1, 2],
        "synth.lengths": ["chat"],
        "synth.rate_per_s": [5.0],
    }


def test_without_policies_the_command_lines_default_ones():
    assert grid_axes({})["policy"] == list(COMPARED)


def test_ranges_and_arrays_are_lists_of_values():
    axes = grid_axes({"seed": range(3), "rate_per_s": list(np.array([0.5, 1.5])), "instances": [np.int64(4)]})
    assert axes["seed"] == [0, 1, 2]
    assert axes["rate_per_s"] == [0.5, 1.5]
    assert type(axes["instances"][0]) is int


def test_null_leaves_an_option_to_its_default():
    assert grid_axes({"kernel": [None, "fa3"]})["kernel"] == [None, "fa3"]


@pytest.mark.parametrize(
    ("grid", "complaint"),
    [
        ({"polices": "l4"}, r"grid: unknown key 'polices' \(did you mean policies\?\); accepted are policies, trace"),
        ({"synth": {"requets": 5}}, r"grid: synth: unknown key 'requets' \(did you mean requests\?\); accepted are"),
        ({"synth": "chat"}, "grid: synth: accepted are keys of its own: lengths"),
        ({"policies": ["l4", "l5"]}, "grid: no policy 'l5': accepted are random"),
        ({"rate": "fast"}, "grid: rate: 'fast' is not a number"),
        ({"instances": 1.5}, "grid: instances: 1.5 is not a whole number"),
        ({"instances": True}, "grid: instances: True is not a whole number"),
        ({"prefix_caching": 1}, "grid: prefix_caching: 1 is not true or false"),
        ({"model": 8}, "grid: model: 8 is not text"),
        ({"seed": []}, "grid: seed: the list is empty"),
        ({"seed": [1, 1]}, "grid: seed: a value is given twice"),
        ({"rate": 1, "rate_per_s": 2}, "grid: key 'rate_per_s' is given twice"),
        ({"trace": "a.csv", "synth": {"lengths": "chat"}}, "trace is about a trace's file, and synth makes a trace"),
    ],
)
def test_what_is_not_accepted_is_refused_by_name(grid, complaint):
    with pytest.raises(InputError, match=complaint):
        grid_axes(grid)


def test_yaml_is_read_with_on_and_off_as_names(tmp_path):
    grid = read(tmp_path, "seed: [0, 1]\nprefix_caching: false\nsynth:\n  on_s: 3\n  over_limit: off\n")
    assert grid == {"seed": [0, 1], "prefix_caching": False, "synth": {"on_s": 3, "over_limit": "off"}}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("rate: 1\nseed: 2\nrate: 3\n", r"grid.yaml:3: key 'rate' is given twice"),
        ("- rate\n", r"grid.yaml: accepted is a mapping of keys to values"),
        ("", r"grid.yaml: accepted is a mapping of keys to values"),
        ("rate: [1\nseed: 2\n", r"grid.yaml:2: "),
    ],
)
def test_damaged_yaml_is_refused_with_its_line(tmp_path, text, complaint):
    with pytest.raises(InputError, match=complaint):
        read(tmp_path, text)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(InputError, match=r"none.yaml: cannot be read"):
        read_grid(tmp_path / "none.yaml")
