"""What a sweep leaves while it runs: one file per point, under the point's key."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from l4sim.errors import InputError
from l4sim.results.write import unwritable
from l4sim.sweeps.points import Row

if TYPE_CHECKING:
    from pandas import DataFrame


class Store:
    """Rows by key in ``folder/points``, each a one-row Parquet file that is there in whole or not at all.

    Raises:
        InputError: the folder cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self._points = folder / "points"
        try:
            self._points.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(folder, error) from error

    def write(self, key: str, row: Mapping[str, Any]) -> None:
        """Keep a row; a kill at any moment leaves the old state or the new one.

        Raises:
            InputError: the file cannot be written.
        """
        import pyarrow as pa  # type: ignore[import-untyped]
        import pyarrow.parquet as pq  # type: ignore[import-untyped]

        part = self._points / f"{key}.part"
        try:
            pq.write_table(pa.Table.from_pylist([dict(row)]), part)
            os.replace(part, self._path(key))
        except OSError as error:
            raise unwritable(self._points, error) from error

    def read(self, key: str) -> Row | None:
        """The row under a key; None if there is none.

        Raises:
            InputError: the file is damaged.
        """
        import pyarrow.parquet as pq

        path = self._path(key)
        if not path.exists():
            return None
        try:
            [row] = pq.read_table(path).to_pylist()
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: not a point of a sweep ({error}); delete it to have it run again") from None
        found: Row = row
        return found

    def _path(self, key: str) -> Path:
        return self._points / f"{key}.parquet"


def table_of(rows: Sequence[Mapping[str, Any]]) -> DataFrame:
    """The rows as a frame; a figure that a row lacks is missing in it."""
    from pandas import DataFrame

    return DataFrame(list(rows))
