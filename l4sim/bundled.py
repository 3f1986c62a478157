"""Where the bundled profiles and traces lie, in a checkout and in an installed wheel alike."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent

DEFAULT_TRACE = "long-context-mix.jsonl.gz"
"""The trace of who names none."""


def folder(kind: str) -> Path:
    """The folder of bundled ``"profiles"`` or ``"traces"``.

    A wheel carries them inside the package; a checkout has them at its top level.
    """
    inside = _PACKAGE / "_data" / kind
    return inside if inside.is_dir() else _PACKAGE.parent / kind
