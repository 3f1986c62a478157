import re

import pytest

from l4sim.errors import InputError
from l4sim.specs.failure import Failure, parse_failures


def test_instances_die_at_seconds_with_or_without_the_unit():
    assert parse_failures("3@120s, 0@.5,1@7.25s", 4) == (Failure(3, 120.0), Failure(0, 0.5), Failure(1, 7.25))


@pytest.mark.parametrize(
    "text", ["", "3", "3@", "@5", "3@-1s", "3@nan", "3@inf", "3@5m", "x@5", "-1@5", "1.5@5", "1@5,"]
)
def test_anything_else_is_refused_with_an_example(text):
    with pytest.raises(InputError, match="accepted is INSTANCE@SECONDS, such as 3@120s"):
        parse_failures(text, 4)


def test_an_instance_must_exist_and_dies_once():
    with pytest.raises(InputError, match=re.escape("--fail 4@1s: no instance 4; accepted are 0 to 3")):
        parse_failures("4@1s", 4)
    with pytest.raises(InputError, match=re.escape("--fail 1@3s: instance 1 dies twice")):
        parse_failures("1@2s,2@2s,1@3s", 4)
