"""The parts of an HTML report: page, tables, pictures, and the section on how far a profile can be trusted."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from l4sim import __version__
from l4sim.results.write import unwritable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from l4sim.cost.communication import AllReduce
    from l4sim.cost.profile import Profile

Cell = str | tuple[str, str]
"""A table's cell: a text, or a text and a remark in smaller letters."""

_STYLE = """
:root { color-scheme: light dark; --ink: #222; --faint: #666; --line: #ddd; --ground: #fff; --warning: #b00020 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ddd; --faint: #999; --line: #444; --ground: #181818; --warning: #ff8a80 }
}
body { font: 15px/1.5 system-ui, sans-serif; max-width: 930px; margin: 2em auto; padding: 0 1em;
  color: var(--ink); background: var(--ground) }
h1 { font-size: 1.4em; line-height: 1.3 } .answer { font-size: 1.1em; font-weight: 600 }
h2 { font-size: 1.15em; margin-top: 2.2em; border-bottom: 1px solid var(--line) }
nav { font-size: 14px } nav a { margin-right: 1.2em; color: inherit }
.wide { overflow-x: auto }
table { border-collapse: separate; border-spacing: 0; margin: 0.5em 0;
  font-size: 14px; font-variant-numeric: tabular-nums }
th, td { padding: 3px 14px 3px 0; text-align: right; vertical-align: top; white-space: nowrap;
  border-bottom: 1px solid var(--line) }
th { vertical-align: bottom; white-space: normal } .stacked small { display: block }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: var(--ground) }
.plain th, .plain td { text-align: left; white-space: normal; overflow-wrap: anywhere }
.plain td:first-child { white-space: nowrap }
.warning { color: var(--warning) } small, figcaption { color: var(--faint); font-size: 13px }
figure { margin: 1.5em 0 } summary { cursor: pointer }
img { max-width: 100%; height: auto; box-sizing: border-box; background: #fff; border-radius: 4px }
@media (max-width: 600px) {
  td:first-child, .plain td:first-child { white-space: normal } th, td { padding-right: 9px }
}
@media print { nav { display: none } body { max-width: none } figure, tr { break-inside: avoid } }
"""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page under a heading of its own, as HTML."""

    heading: str
    parts: tuple[str, ...]


def write_page(path: Path, title: str, lead: Sequence[str], sections: Sequence[Section]) -> Path:
    """Write a self-contained HTML file: the title, ``lead`` below it, links to the sections, the sections.

    Raises:
        InputError: it cannot be written.
    """
    shown = [section for section in sections if any(section.parts)]
    links = "".join(f'<a href="#s{number}">{escape(each.heading)}</a>' for number, each in enumerate(shown))
    body = [f"<h1>{escape(title)}</h1>", *lead, f"<nav>{links}</nav>"]
    for number, section in enumerate(shown):
        body += [f'<h2 id="s{number}">{escape(section.heading)}</h2>', *section.parts]
    body.append(f"<p><small>l4sim {__version__}</small></p>")
    text = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(filter(None, body))
        + "\n</body></html>\n"
    )
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise unwritable(path, error) from error
    return path


def paragraph(text: str, style: str = "") -> str:
    """A paragraph of plain text; ``style`` is ``answer`` or ``warning``."""
    # A number and its percent sign stay on one line.
    content = escape(text).replace(" %", "&nbsp;%")
    return f'<p class="{style}">{content}</p>' if style else f"<p>{content}</p>"


def remark(text: str) -> str:
    """A paragraph in small letters."""
    return f"<p><small>{escape(text)}</small></p>"


def table(header: Sequence[str], rows: Iterable[Sequence[Cell]], style: str = "") -> str:
    """A table whose first column stays in view.

    ``style`` is ``plain`` for a table of texts, or ``stacked`` to put the cells' remarks below their texts.
    """
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{_cell(cell)}</td>" for cell in row) + "</tr>\n" for row in rows)
    return (
        f'<div class="wide"><table class="{style}"><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>'
    )


def folded(summary: str, inside: str) -> str:
    """Content that is hidden until its summary line is clicked."""
    return f"<details><summary>{escape(summary)}</summary>\n{inside}</details>"


def picture(figure: Figure, caption: str) -> str:
    """A figure as PNG inside the page."""
    from l4sim.results.plots.style import png

    image = b64encode(png(figure)).decode("ascii")
    return (
        f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{image}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def profile_parts(profile: Profile, kernel: str, basis: str, all_reduces: Sequence[AllReduce]) -> Iterator[str]:
    """What a profile's seconds come from, its errors on held-out points, and what of it was not measured.

    ``basis`` tells which of the parts that the runs used were measured (`l4sim.cost.basis`); of its tables of
    all-reduces those are shown that the runs took.
    """
    style = "" if basis == "measured" else ' class="warning"'
    yield (
        f"<p>Seconds come from the profile <b>{escape(profile.name)}</b>, attention kernel {escape(kernel)}: "
        f"<span{style}>{escape(basis)}</span>. Its errors below are on points that the fit did not see; the errors "
        "of simulated latencies are not the same thing.</p>"
    )
    used = {curve for one in all_reduces for curve in (one.captured, one.eager)}
    unused = {table.name for table in profile.all_reduce if table.curve not in used}
    errors = {
        **{f"attention, {kind}": found for kind, found in profile.kernels[kernel].errors.items()},
        **{name: found for name, found in profile.errors.items() if name not in unused},
    }
    measured = {name: found for name, found in errors.items() if found}
    for columns in dict.fromkeys(tuple(found) for found in measured.values()):
        rows = [
            (name, *(f"{value:,.10g}" for value in found.values()))
            for name, found in measured.items()
            if tuple(found) == columns
        ]
        yield table(("operator", *map(_error_name, columns)), rows)
    missing = [name for name, found in errors.items() if not found]
    if not profile.kernels[kernel].errors:
        missing.insert(0, "attention")
    if missing:
        yield paragraph(f"Not measured: {', '.join(missing)}.", "warning")
    provenance = profile.provenance
    origin = [(field.name, getattr(provenance, field.name) or "not known") for field in fields(provenance)]
    sources = [*profile.sources.items(), (f"attention, {kernel}", profile.kernels[kernel].source)]
    rows = [*origin, *sources, ("sha256", profile.content_hash)]
    yield folded("Where the profile comes from", table(("profile", ""), rows, "plain"))


def setting_rows(prefix: str, group: Any) -> list[tuple[str, str]]:
    """A dataclass's fields and values as rows of a table; those of dataclasses within it by their path."""
    return [row for field in fields(group) for row in _setting_rows(prefix + field.name, getattr(group, field.name))]


def _setting_rows(name: str, value: Any) -> list[tuple[str, str]]:
    if is_dataclass(value):
        return setting_rows(f"{name}: ", value)
    if isinstance(value, tuple) and value and all(map(is_dataclass, value)):
        return [row for number, item in enumerate(value, 1) for row in setting_rows(f"{name} {number}: ", item)]
    return [(name, str(value))]


def _cell(cell: Cell) -> str:
    if isinstance(cell, str):
        return escape(cell)
    text, remark = cell
    return f"{escape(text)} <small>{escape(remark)}</small>" if remark else escape(text)


def _error_name(column: str) -> str:
    """``mape_pct`` as ``MAPE (%)``."""
    name, percent, _ = column.partition("_pct")
    words = name.upper() if name in ("mape", "p90") else name.replace("_", " ")
    return f"{words} (%)" if percent else words
