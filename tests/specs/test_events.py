"""Events of a fleet's instances: how they are written, and which a fleet can have."""

import re

import pytest

from l4sim.errors import InputError
from l4sim.specs.events import Drain, Event, Fail, Join, joins, parse_events, settle_events


def test_instances_die_at_seconds_with_or_without_the_unit() -> None:
    assert parse_events("fail", "3@120s, 0@.5,1@7.25s") == (Fail(3, 120.0), Fail(0, 0.5), Fail(1, 7.25))


def test_instances_drain_at_seconds() -> None:
    assert parse_events("drain", "0@90s") == (Drain(0, 90.0),)


def test_some_instances_of_a_group_join_at_seconds() -> None:
    assert parse_events("join", "2@300s,slow:1@5") == (Join("", 300.0), Join("", 300.0), Join("slow", 5.0))


@pytest.mark.parametrize(
    "text", ["", "3", "3@", "@5", "3@-1s", "3@nan", "3@inf", "3@5m", "x@5", "-1@5", "1.5@5", "1@5,"]
)
@pytest.mark.parametrize("kind", ["fail", "drain"])
def test_anything_else_is_refused_with_an_example(kind: str, text: str) -> None:
    with pytest.raises(InputError, match=f"^--{kind} '.*': accepted is INSTANCE@SECONDS, such as 3@120s$"):
        parse_events(kind, text)


@pytest.mark.parametrize("text", ["", "0@5", "2", "2@", "fast@5", "fast:@5", ":2@5", "9a:2@5", "2@5,"])
def test_a_join_that_is_not_one_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InputError, match=r"^--join '.*': accepted is \[GROUP:\]COUNT@SECONDS, such as 2@300s$"):
        parse_events("join", text)


def test_an_instance_must_exist_and_dies_once() -> None:
    with pytest.raises(InputError, match=re.escape("--fail 4@1s: no instance 4; accepted are 0 to 3")):
        settle_events([Fail(4, 1.0)], {"all": 4})
    with pytest.raises(InputError, match=re.escape("--fail 1@3s: instance 1 dies twice")):
        settle_events([Fail(1, 2.0), Fail(2, 2.0), Fail(1, 3.0)], {"all": 4})
    with pytest.raises(InputError, match=re.escape("--drain 0@3s: instance 0 drains twice")):
        settle_events([Drain(0, 2.0), Drain(0, 3.0)], {"all": 1})


def test_an_instance_may_die_while_it_drains() -> None:
    events: list[Event] = [Drain(0, 2.0), Fail(0, 3.0)]
    assert settle_events(events, {"all": 1}) == tuple(events)


def test_instances_that_join_are_numbered_on_in_the_order_in_which_they_do() -> None:
    late, early = Join("b", 20.0), Join("a", 10.0)
    assert joins([late, Fail(0, 1.0), early]) == (early, late)
    counts = {"a": 2, "b": 1}
    assert settle_events([late, early, Drain(3, 10.0), Fail(4, 20.0)], counts)[2:] == (Drain(3, 10.0), Fail(4, 20.0))
    with pytest.raises(InputError, match=re.escape("--fail 4@15s: instance 4 joins at 20 s only")):
        settle_events([late, early, Fail(4, 15.0)], counts)
    with pytest.raises(InputError, match=re.escape("--drain 5@30s: no instance 5; accepted are 0 to 4")):
        settle_events([late, early, Drain(5, 30.0)], counts)


def test_the_only_group_need_not_be_named() -> None:
    assert settle_events([Join("", 1.0)], {"all": 4}) == (Join("all", 1.0),)
    with pytest.raises(InputError, match=re.escape("--join 1@1s: name its group; accepted are a, b")):
        settle_events([Join("", 1.0)], {"a": 1, "b": 1})
    with pytest.raises(InputError, match=re.escape("--join c:1@1s: no such group; accepted are a, b")):
        settle_events([Join("c", 1.0)], {"a": 1, "b": 1})
