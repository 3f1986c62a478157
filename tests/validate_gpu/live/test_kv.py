import numpy as np
import pytest
import torch

from l4sim.errors import InputError
from tests.mixed_model import MIXED
from tests.validate_gpu.live.small import CPU, MODEL
from validate_gpu.live.kv import KvMemory, copy_kv, equal_kv
from validate_gpu.live.model import Transformer


def filled(pages: int) -> KvMemory:
    kv = KvMemory(MODEL, pages, 4, CPU, torch.float32)
    generator = torch.Generator().manual_seed(pages)
    kv.keys.normal_(generator=generator)
    kv.values.normal_(generator=generator)
    return kv


def test_tokens_are_copied_to_the_other_pools_pages_and_nothing_else_changes():
    source, destination = filled(6), filled(9)
    before = destination.keys.clone(), destination.values.clone()
    # Tokens 3 to 8 of a request: the end of its first page, its second, and the first token of its third.
    copy_kv(source, np.array([5, 0, 2]), destination, np.array([1, 8, 4]), 3, 9)
    for mine, theirs, old in zip(
        (source.keys, source.values), (destination.keys, destination.values), before, strict=True
    ):
        expected = old.clone()
        expected[:, 1, 3] = mine[:, 5, 3]
        expected[:, 8] = mine[:, 0]
        expected[:, 4, 0] = mine[:, 2, 0]
        assert torch.equal(theirs, expected)


def test_long_requests_are_copied_in_pieces(monkeypatch):
    # A token takes 2 layers' keys and values of 2 heads of 64 floats, 2 KiB: pieces of three tokens.
    monkeypatch.setattr("validate_gpu.live.kv._PIECE_BYTES", 3 * 2048 + 1)
    source, destination = filled(6), filled(9)
    moved = source, np.array([5, 0, 2]), destination, np.array([1, 8, 4])
    copy_kv(*moved, 1, 11)
    assert equal_kv(*moved, 1, 11)
    assert not equal_kv(*moved, 1, 12)
    destination.values[1, 4, 2, 1, 63] += 1e-3
    assert not equal_kv(*moved, 1, 11)
    assert equal_kv(*moved, 1, 10)


def test_written_keys_and_values_lie_in_their_slots():
    kv = filled(3)
    new_keys, new_values = torch.ones(2, 2, 64), torch.full((2, 2, 64), 2.0)
    for part, new in zip(kv.layer(1), (new_keys, new_values), strict=True):
        part[torch.tensor([11, 4])] = new
    assert (kv.keys[1, 2, 3] == 1).all()
    assert (kv.keys[1, 1, 0] == 1).all()
    assert (kv.values[1, 2, 3] == 2).all()
    assert not (kv.keys[0] == 1).any()


def test_the_live_engine_takes_models_of_one_kind_of_layers_alone():
    with pytest.raises(InputError, match="mixed: 2 groups of layers"):
        KvMemory(MIXED, 2, 4, CPU, torch.float32)
    with pytest.raises(InputError, match="mixed: 2 groups of layers"):
        Transformer(MIXED, max_model_len=8, seed=0, device=CPU, dtype=torch.float32)
