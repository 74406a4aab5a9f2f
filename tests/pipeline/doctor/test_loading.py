"""What loaders that give whole shards to workers leave out, against hand-counted cases and a loader played through."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.doctor.findings import Findings, Level
from pipeline.doctor.loading import LoaderShape, check_loading, dropped_samples


@pytest.mark.parametrize(
    ("sizes", "shape", "by_batching", "by_ranks"),
    [
        ([10, 10], LoaderShape(), 0, 0),
        ([10, 10], LoaderShape(batch_size=4), 0, 0),
        ([10, 10], LoaderShape(workers=2, batch_size=4), 4, 0),
        ([10, 6], LoaderShape(world_size=2), 0, 4),
        ([10, 6], LoaderShape(world_size=2, batch_size=4), 4, 4),
        ([10, 10], LoaderShape(world_size=3), 0, 20),
        ([], LoaderShape(world_size=3), 0, 0),
    ],
)
def test_dropped_by_hand(sizes, shape, by_batching, by_ranks):
    dropped = dropped_samples(sizes, shape)
    assert (dropped.by_batching, dropped.by_ranks) == (by_batching, by_ranks)


def batches_of_rank(sizes: list[int], shape: LoaderShape, rank: int) -> int:
    """Play a rank's workers through, sample by sample."""
    num_batches = 0
    for worker in range(shape.workers):
        shards = [shard for shard in range(len(sizes)) if shard % shape.world_size == rank]
        waiting = 0
        for shard in shards[worker :: shape.workers]:
            for _ in range(sizes[shard]):
                waiting += 1
                if waiting == shape.batch_size:
                    num_batches, waiting = num_batches + 1, 0
    return num_batches


SHAPES = st.builds(LoaderShape, world_size=st.integers(1, 4), workers=st.integers(1, 4), batch_size=st.integers(1, 5))


@given(sizes=st.lists(st.integers(0, 12), max_size=12), shape=SHAPES)
def test_dropped_is_what_a_loader_leaves_out(sizes, shape):
    ranks = [batches_of_rank(sizes, shape, rank) for rank in range(shape.world_size)]
    seen = min(ranks) * shape.world_size * shape.batch_size
    dropped = dropped_samples(sizes, shape)
    assert dropped.total == sum(sizes) - seen
    assert dropped.by_batching == sum(sizes) - sum(ranks) * shape.batch_size


@given(sizes=st.lists(st.integers(0, 12), max_size=12), shape=SHAPES)
def test_too_few_shards_are_an_error_and_the_drops_are_always_told(sizes, shape):
    findings = Findings()
    check_loading(sizes, shape, findings)
    assert findings.num(Level.ERROR) == (len(sizes) < shape.world_size * shape.workers)
    assert findings.num(Level.WARNING) + findings.num(Level.NOTE) == 1
