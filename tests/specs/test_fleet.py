"""Fleets from YAML and from Python: what is read, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from l4sim.errors import InputError
from l4sim.specs.events import Drain, Fail, Join
from l4sim.specs.fleet import Fleet, FleetGroup, read_fleet
from l4sim.specs.options import Options

Write = Callable[[str], Path]


ONE = "groups: [{name: a, count: 1}]\n"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(text: str) -> Path:
        path = tmp_path / "fleet.yaml"
        path.write_text(text)
        return path

    return written


def test_groups_links_and_events_are_read(write: Write) -> None:
    fleet = read_fleet(
        write("""
            gpus_per_node: 4
            inter_link: network-400g
            groups:
              - {name: fast, count: 2, profile: h200-flashinfer, kernel: fa3}
              - {name: slow, count: 4, profile: h100-sxm, role: decode, max_num_seqs: 64, async_scheduling: false}
            events:
              - fail: 3@120s
              - join: fast:2@60s
              - drain: 0@90.5
        """)
    )
    assert fleet == Fleet(
        (
            FleetGroup("fast", 2, profile="h200-flashinfer", kernel="fa3"),
            FleetGroup("slow", 4, profile="h100-sxm", role="decode", max_num_seqs=64, async_scheduling=False),
        ),
        gpus_per_node=4,
        inter_link="network-400g",
        events=(Fail(3, 120.0), Join("fast", 60.0), Join("fast", 60.0), Drain(0, 90.5)),
    )


def test_a_fleet_decides_the_options_that_it_or_a_group_names() -> None:
    fleet = Fleet((FleetGroup("a", 1, kv_blocks=100), FleetGroup("b", 1, profile="h100-sxm")), gpus_per_node=4)
    assert list(fleet.settled()) == ["instances", "gpus_per_node", "kv_blocks", "profile"]
    assert fleet.groups[0].overrides() == {"kv_blocks": 100}


def test_what_a_group_can_set_is_an_option_of_a_run() -> None:
    given = FleetGroup("a", 1, **dict.fromkeys(_settings(), 1))
    assert set(given.overrides()) == set(_settings())
    assert all(hasattr(Options(), name) for name in _settings())


def _settings() -> list[str]:
    from dataclasses import fields

    return [field.name for field in fields(FleetGroup) if field.name not in ("name", "count", "role")]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("groups: []", ": a fleet has at least one group"),
        ("groups: 3", ": groups: expected array, got int"),
        ("groups: [a]", r": groups\[0\]: expected object, got str"),
        ("{}", ": Object missing required field groups"),
        ("- a", ": accepted is a mapping of keys to values, such as 'groups: "),
        (ONE + "nodes: 2", ": unknown key 'nodes'; accepted are groups, gpus_per_node, inter"),
        ("groups: [{name: a, cuont: 2}]", r": groups\[0\]: unknown key 'cuont'; accepted are name, count, profile"),
        ("groups: [{name: a}]", r": groups\[0\]: object missing required field count"),
        ("groups: [{name: a, count: x}]", r": groups\[0\].count: expected int, got str"),
        ("groups: [{name: a, count: true}]", r": groups\[0\].count: expected int, got bool"),
        ("groups: [{name: a, count: 1, kv_blocks: 1.5}]", r": groups\[0\].kv_blocks: expected int \| null, got float"),
        ("groups: [{name: a, count: 0}]", r": groups\[0\]: group a: count is 0, accepted is a whole number >= 1"),
        ("groups: [{name: a, count: 1, role: draft}]", "group a: no role 'draft', accepted are both, prefill, decode"),
        ("groups: [{name: 'a b', count: 1}]", "a group cannot be called 'a b': accepted are letters, digits"),
        ("groups: [{name: a, count: 1}, {name: a, count: 2}]", ": 2 groups are called a: accepted is a name of its"),
        (ONE + "events: [fail]", r": events\[0\]: expected object, got str"),
        (ONE + "events: [{fial: 0@1}]", r": events\[0\]: unknown key 'fial'; accepted are fail"),
        (ONE + "events: [{fail: 3}]", r": events\[0\]: fail '3': accepted is INSTANCE@SECONDS"),
        (
            ONE + "events: [{fail: 0@1, drain: 0@1}]",
            r": events\[0\]: accepted is one of fail, drain, join, such as 'fail: 3@120s'",
        ),
        (ONE + "events: [{fail: 1@1}]", ": events: fail 1@1s: no instance 1; accepted are 0 to 0"),
        (ONE + "events: [{join: b:2@1}]", ": events: join b:1@1s: no such group; accepted are a"),
        ("groups: [{name: a, count: 1, count: 2}]", ":1: key 'count' is given twice"),
    ],
)
def test_what_is_not_accepted_is_refused_by_file_and_key(write: Write, text: str, complaint: str) -> None:
    with pytest.raises(InputError, match=rf"^\S*fleet\.yaml.*{complaint}") as refused:
        read_fleet(write(text))
    assert "\n" not in str(refused.value)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.yaml: cannot be read"):
        read_fleet(tmp_path / "none.yaml")
