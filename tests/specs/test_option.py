"""Options told once: what is known of them, what they take, what a docstring says of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from l4sim.errors import InputError
from l4sim.specs.option import check, described, documented, option
from l4sim.specs.options import DEFAULTS, GROUPS, Options, TraceOptions


@documented
@dataclass(frozen=True)
class Oven:
    """An oven."""

    heat_c: float = option(180.0, "How hot.", "Heat", unit="C", flag="--heat", above=0, at_most=300)
    mode: str = option("top", "Where from.", "Heat", choices=("top", "bottom"))
    shelves: int | None = option(None, "How many.", "Inside", unset="what fits", at_least=1)
    light: bool = option(False, "Whether one sees.", "Inside")
    recipe: Path | None = option(None, "What to do.", "Inside")


def test_an_option_knows_its_name_kind_default_and_flag() -> None:
    told = {each.name: each for each in described(Oven)}
    assert (told["heat_c"].kind, told["heat_c"].default, told["heat_c"].flag) == (float, 180.0, "--heat")
    assert (told["shelves"].kind, told["shelves"].default, told["shelves"].flag) == (int, None, "--shelves")
    assert [told[name].kind for name in ("mode", "light", "recipe")] == [str, bool, Path]


def test_the_docstring_tells_every_field_in_its_group() -> None:
    assert Oven.__doc__ is not None
    assert [line.strip() for line in Oven.__doc__.splitlines() if line] == [
        "An oven.",
        "Fields:",
        "Heat:",
        "heat_c (C): How hot. [default: 180.0]",
        "mode: Where from. [default: 'top']",
        "Inside:",
        "shelves: How many. [default: what fits]",
        "light: Whether one sees. [default: False]",
        "recipe: What to do.",
    ]


def test_defaults_and_anything_in_range_pass() -> None:
    check(Oven())
    check(Oven(heat_c=300, mode="bottom", shelves=3, light=True, recipe=Path("bread")))


@pytest.mark.parametrize(
    ("oven", "complaint"),
    [
        (Oven(heat_c=0), "heat_c must be a number above 0 and of at most 300, not 0"),
        (Oven(heat_c=float("nan")), "heat_c must be a number above 0 and of at most 300, not nan"),
        (Oven(heat_c=True), "heat_c must be a number above 0 and of at most 300, not True"),
        (Oven(heat_c="hot"), "heat_c must be a number above 0 and of at most 300, not 'hot'"),  # type: ignore[arg-type]
        (Oven(mode="grill"), "mode must be one of top, bottom, not 'grill'"),
        (Oven(shelves=0), "shelves must be a whole number of at least 1, not 0"),
        (Oven(light=1), "light must be True or False, not 1"),  # type: ignore[arg-type]
    ],
)
def test_anything_else_is_refused_by_name(oven: Oven, complaint: str) -> None:
    with pytest.raises(InputError, match=f"^{complaint}$"):
        check(oven)


@pytest.mark.parametrize("options", [Options, TraceOptions])
def test_every_option_of_a_run_says_what_it_means_in_a_known_group(options: type) -> None:
    for each in described(options):
        assert each.option.text.endswith("."), each.name
        assert each.option.group in GROUPS, each.name


def test_the_defaults_are_accepted() -> None:
    check(DEFAULTS)
    check(TraceOptions())


def test_no_flag_is_given_twice() -> None:
    flags = [each.flag for each in (*described(TraceOptions), *described(Options))]
    assert len(set(flags)) == len(flags)
