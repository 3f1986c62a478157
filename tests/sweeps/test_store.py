"""Stored points: there in whole or not at all."""

from __future__ import annotations

import pytest

from l4sim.errors import InputError
from l4sim.sweeps.store import Store

ROW = {"policy": "l4", "instances": 4, "kernel": None, "ttft_mean_s": 0.25, "meets_slo": True}


def test_a_row_comes_back_as_it_was(tmp_path):
    Store(tmp_path / "out").write("key", ROW)
    assert Store(tmp_path / "out").read("key") == ROW


def test_an_unknown_key_has_no_row(tmp_path):
    assert Store(tmp_path).read("key") is None


def test_a_kill_while_writing_leaves_no_row(tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("l4sim.sweeps.store.os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        Store(tmp_path).write("key", ROW)
    assert Store(tmp_path).read("key") is None


def test_a_damaged_file_and_a_folder_that_cannot_be_made_are_told(tmp_path):
    store = Store(tmp_path)
    (tmp_path / "points" / "key.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"key.parquet: not a point of a sweep"):
        store.read("key")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file: cannot be written"):
        Store(tmp_path / "file")
