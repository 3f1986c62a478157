import numpy as np

from validate_gpu.live.sequences import Sequences, prompt_ids


def test_a_prompt_is_the_same_however_it_is_cut():
    whole = prompt_ids(3, 0, 50, 1000, seed=1)
    np.testing.assert_array_equal(
        np.concatenate([prompt_ids(3, 0, 17, 1000, 1), prompt_ids(3, 17, 50, 1000, 1)]), whole
    )


def test_prompts_differ_by_request_and_by_seed_and_stay_in_the_vocabulary():
    one = prompt_ids(3, 0, 200, 50, seed=1)
    assert (one != prompt_ids(4, 0, 200, 50, seed=1)).any()
    assert (one != prompt_ids(3, 0, 200, 50, seed=2)).any()
    assert set(one) <= set(range(50))


def test_prompt_tokens_use_the_whole_vocabulary_evenly():
    counts = np.bincount(prompt_ids(0, 0, 80_000, 8, seed=0))
    assert abs(counts - 10_000).max() < 5 * 10_000**0.5


def test_sampled_tokens_follow_the_prompt():
    sequences = Sequences(50, seed=0)
    sequences.sampled[3].extend([11, 12, 13])
    prompt = prompt_ids(3, 0, 4, 50, 0).tolist()
    assert sequences.tokens(3, 4, 0, 4).tolist() == prompt
    assert sequences.tokens(3, 4, 2, 6).tolist() == [*prompt[2:], 11, 12]
    assert sequences.tokens(3, 4, 6, 7).tolist() == [13]


def test_a_token_that_was_sampled_and_lost_is_overwritten():
    sequences = Sequences(50, seed=0)
    for position, token in ((0, 11), (1, 12), (1, 22), (2, 23)):
        sequences.append(3, position, token)
    assert sequences.sampled[3].tolist() == [11, 22, 23]
