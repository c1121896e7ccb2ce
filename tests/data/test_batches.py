import pytest

from dataset.samples.batches import SampleKey, global_batches, sample_rng
from util.errors import InputError


def stream(**settings) -> list[list[SampleKey]]:
    return list(global_batches(**{"length": 10, "batch_size": 4, "iterations": 12, "seed": 3} | settings))


def test_every_epoch_has_every_sample_once_in_its_own_order():
    keys = [key for batch in stream(iterations=15) for key in batch]
    epochs = [[key.index for key in keys if key.epoch == epoch] for epoch in range(6)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6
    assert [key.iteration for key in keys] == [number // 4 for number in range(60)]
    assert [key.epoch for key in keys] == sorted(key.epoch for key in keys)


def test_seeds_differ_and_repeat():
    assert stream() == stream()
    assert stream() != stream(seed=4)


@pytest.mark.parametrize("start", [1, 5, 11, 12])
def test_resumes_where_it_stopped(start):
    assert stream(start_iteration=start) == stream()[start:]


@pytest.mark.parametrize(("world_size", "accumulation"), [(1, 4), (2, 1), (2, 2), (4, 1)])
def test_any_split_makes_the_same_global_batches(world_size, accumulation):
    ranks = [stream(rank=rank, world_size=world_size, accumulation=accumulation) for rank in range(world_size)]
    for iteration, batch in enumerate(stream()):
        steps = slice(iteration * accumulation, (iteration + 1) * accumulation)
        assert [key for rank in ranks for micro_batch in rank[steps] for key in micro_batch] == batch


def test_data_smaller_than_a_batch():
    assert [key.epoch for key in stream(length=3, batch_size=8, iterations=1)[0]] == [0, 0, 0, 1, 1, 1, 2, 2]


def test_uneven_split_is_refused():
    with pytest.raises(InputError, match=r"batch of 4 .* 3 processes × 2 .*batch_size"):
        stream(world_size=3, accumulation=2)


def test_samples_have_their_own_randomness():
    keys = [SampleKey(0, 0, 0), SampleKey(0, 1, 0), SampleKey(1, 0, 0), SampleKey(1, 1, 0)]
    numbers = [sample_rng(seed, key).random() for seed in (0, 1) for key in keys]
    assert len(set(numbers)) == 8
    assert sample_rng(0, SampleKey(0, 1, 0)).random() == sample_rng(0, SampleKey(0, 1, 9)).random()
