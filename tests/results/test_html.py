"""What pages are made of."""

from __future__ import annotations

import re
from dataclasses import dataclass

from l4sim.results.html import Section, folded, paragraph, remark, setting_rows, table, write_page


@dataclass
class Inner:
    size: int


@dataclass
class Outer:
    name: str
    one: Inner
    many: tuple[Inner, ...]
    none: tuple[Inner, ...]


def test_whatever_is_told_is_text():
    assert paragraph("a < b & c") == "<p>a &lt; b &amp; c</p>"
    assert "&lt;i&gt;" in table(("<i>",), [["x"]])
    assert "&lt;i&gt;" in table(("x",), [[("1", "<i>")]])
    assert "&lt;i&gt;" in folded("<i>", "")
    assert "&lt;i&gt;" in remark("<i>")


def test_a_number_keeps_its_percent_sign_on_its_line():
    assert paragraph("by 12 %", "answer") == '<p class="answer">by 12&nbsp;%</p>'


def test_a_remark_is_small_and_an_empty_one_is_none():
    body = table(("a", "b"), [[("1", "±2"), ("3", "")]])
    assert "<td>1 <small>±2</small></td><td>3</td>" in body


def test_sections_without_parts_are_neither_shown_nor_linked(tmp_path):
    sections = [Section("Full", (paragraph("x"),)), Section("Empty", ()), Section("Blank", ("",))]
    text = write_page(tmp_path / "page.html", "Title", [], sections).read_text()
    assert re.findall(r"<h2[^>]*>([^<]*)", text) == ["Full"]
    assert re.findall(r'<a href="#s0">([^<]*)', text) == ["Full"]


def test_a_page_is_readable_on_dark_grounds_and_narrow_screens(tmp_path):
    text = write_page(tmp_path / "page.html", "Title", [], []).read_text()
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text


def test_settings_within_settings_are_told_by_their_path():
    group = Outer("a", Inner(1), (Inner(2), Inner(3)), ())
    assert setting_rows("x: ", group) == [
        ("x: name", "a"),
        ("x: one: size", "1"),
        ("x: many 1: size", "2"),
        ("x: many 2: size", "3"),
        ("x: none", "()"),
    ]
