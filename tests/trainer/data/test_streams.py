"""Streams of whole tars: each image once an epoch on any processes and workers, each tar opened once, and resumed."""

import multiprocessing
import pickle
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from schemas.dataset import Dataset
from tests.shards import caption_overlay, tiny_sample, write_file, write_overlay, write_shard
from tests.trainer.processes import run_processes
from trainer.data.batch import LoadedBatch
from trainer.data.batches import Batches
from trainer.data.index import SampleIndex, build_index
from trainer.data.lanes import LANES, MIXED, EpochLanes
from trainer.data.streams import StreamedBatches
from trainer.data.tars import TarReader
from trainer.errors import TrainingError
from trainer.hyperparameters import OrderSettings, SampleSettings
from trainer.loss.gather import rank, world_size

SHARD_SIZES = (7, 1, 3, 5, 2, 4, 6, 1, 2, 3, 4)
KEYS = [f"s{shard}-{i}" for shard, size in enumerate(SHARD_SIZES) for i in range(size)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """More shards than lanes, uneven; image i of a shard has i modulo 4 regions."""
    return write(tmp_path_factory.mktemp("shards"), SHARD_SIZES)


def write(path: Path, sizes: Sequence[int]) -> str:
    for shard, size in enumerate(sizes):
        write_shard(str(path), [tiny_sample(f"s{shard}-{i}", num_regions=i % 4) for i in range(size)], index=shard)
    return str(path)


def streamed(
    folder: str, *, size: int = 6, seed: int = 0, filters: Sequence[Path] = (), **place: int
) -> StreamedBatches:
    dataset = Dataset.open(folder, filters=filters)
    order = OrderSettings(global_batch_size=size, seed=seed, stream=True)
    return StreamedBatches(dataset, build_index(dataset, "train"), order=order, samples=SampleSettings(), **place)


def epoch_of(batches: StreamedBatches, *, epoch: int = 0, num_workers: int = 0) -> list[LoadedBatch]:
    return list(batches.loaded(batches.first_step(epoch), batches.first_step(epoch + 1), num_workers))


def keys_of(batches: Sequence[LoadedBatch]) -> list[str]:
    return [key for batch in batches for key in batch.keys]


def _an_epoch(folder: str, num_workers: int) -> list[tuple[str, ...]]:
    batches = streamed(folder, rank=rank(), world_size=world_size())
    return [batch.keys for batch in epoch_of(batches, num_workers=num_workers)]


@pytest.mark.parametrize("num_workers", [1, 4])
@pytest.mark.parametrize("num_processes", [1, 2, 3])
def test_an_epoch_sees_each_image_once(folder, num_processes, num_workers):
    seen = run_processes(_an_epoch, num_processes, folder, num_workers)
    assert Counter(key for of_process in seen for keys in of_process for key in keys) == Counter(KEYS)
    assert len({len(of_process) for of_process in seen}) == 1, "all take part in all steps"
    assert all(any(of_process[step] for of_process in seen) for step in range(len(seen[0]))), "no step is empty"
    assert max(len(keys) for of_process in seen for keys in of_process) <= 6 // num_processes


def test_steps_are_the_same_with_any_number_of_workers(folder):
    batches = streamed(folder, rank=1, world_size=2)
    expected = [batch.keys for epoch in range(2) for batch in epoch_of(batches, epoch=epoch)]
    for num_workers in (1, 3, 9):
        loaded = batches.loaded(0, batches.first_step(2), num_workers)
        assert [batch.keys for batch in loaded] == expected


def test_a_batch_is_what_the_exact_loader_makes_of_its_images(folder):
    dataset = Dataset.open(folder)
    index = build_index(dataset, "train")
    samples = SampleSettings(max_regions=1, flip=True, trim=0.2)
    order = OrderSettings(global_batch_size=6)
    exact = Batches(dataset, index, order=order, samples=samples)
    whole = {
        key: (batch, i)
        for batch in map(exact.__getitem__, range(exact.first_step(1)))
        for i, key in enumerate(batch.keys)
    }
    for batch in epoch_of(StreamedBatches(dataset, index, order=replace(order, stream=True), samples=samples)):
        for i, key in enumerate(batch.keys):
            assert contents(batch, i) == contents(*whole[key])


def contents(batch: LoadedBatch, image: int) -> tuple[object, ...]:
    """What a batch says of an image."""
    ends = (3 * batch.image_sizes.prod(dim=1)).cumsum(0).tolist()
    pixels = batch.pixels[ends[image - 1] if image else 0 : ends[image]]
    own = batch.region_image_index == image
    regions = (batch.boxes_norm[own], batch.crop_boxes[own], batch.region_index[own])
    return (*(part.tolist() for part in regions), pixels.tolist(), int(batch.caption_index[image]))


def test_epochs_and_seeds_differ(folder):
    orders = [keys_of(epoch_of(streamed(folder, seed=seed), epoch=epoch)) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    assert len(set(map(tuple, orders))) == 3
    assert all(sorted(order) == sorted(KEYS) for order in orders)
    assert orders[0] == keys_of(epoch_of(streamed(folder)))


@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=30).filter(any),
    global_batch_size=st.integers(4, 20),
    num_processes=st.integers(1, 4),
    epoch=st.integers(0, 3),
)
def test_processes_divide_an_epoch(sizes, global_batch_size, num_processes, epoch):
    names, starts = [f"train-{i:06d}" for i in range(len(sizes))], np.cumsum([0, *sizes])
    plans = [
        EpochLanes(
            names,
            starts,
            seed=3,
            epoch=epoch,
            global_batch_size=global_batch_size,
            rank=number,
            world_size=num_processes,
        )
        for number in range(num_processes)
    ]
    assert len({plan.num_steps for plan in plans}) == 1
    assert plans[0].num_steps == max(len(plan.turns) for plan in plans)
    rows = [[plan.lane(turn.lane).batches[turn.number] for turn in plan.turns] for plan in plans]
    assert sorted(np.concatenate([batch for of_plan in rows for batch in of_plan]).tolist()) == list(range(starts[-1]))
    assert all(len(batch) for of_plan in rows for batch in of_plan)
    assert all(sum(map(len, step)) <= global_batch_size for step in zip(*rows, strict=False))
    assert plans[0].num_empty == sum(plans[0].num_steps - len(plan.turns) for plan in plans)


def test_a_lane_reads_ahead_no_more_than_its_buffer():
    plan = EpochLanes(["a", "b"], np.array([0, 5000, 6000]), seed=0, epoch=0, global_batch_size=7, rank=0, world_size=1)
    for lane in range(2):
        mixed = np.concatenate(plan.lane(lane).batches)
        arrives = {row: at for at, row in enumerate(sorted(mixed.tolist()))}
        ahead = [arrives[row] - at for at, row in enumerate(mixed.tolist())]
        assert max(ahead) <= MIXED
        assert np.mean(np.abs(ahead)) > MIXED / 4, "and mixes well"


class OpenedTars:
    """Which tars a data set was asked for, in which order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: list[str] = []
        opened = Dataset.open_tar

        def watched(dataset: Dataset, shard: object) -> object:
            self.names.append(str(shard))
            return opened(dataset, shard)

        monkeypatch.setattr(Dataset, "open_tar", watched)


def test_each_tar_is_opened_once_an_epoch(folder, monkeypatch):
    opened = OpenedTars(monkeypatch)
    epoch_of(streamed(folder))
    assert sorted(opened.names) == [f"train-{shard:06d}" for shard in range(len(SHARD_SIZES))]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_it_goes_on_at_any_step_without_what_was_read_whole(folder, monkeypatch, num_workers):
    batches = streamed(folder, size=3)
    expected = epoch_of(batches)
    opened = OpenedTars(monkeypatch)
    for step in range(1, len(expected)):
        opened.names.clear()
        rest = list(streamed(folder, size=3).loaded(step, len(expected), num_workers))
        assert keys_of(rest) == keys_of(expected[step:])
        assert all(torch.equal(a.pixels, b.pixels) for a, b in zip(rest, expected[step:], strict=True))
        if not num_workers:
            left = {f"train-{key[1:].split('-')[0]:0>6}" for key in keys_of(rest)}
            assert sorted(opened.names) == sorted(left), "each tar that has images left, once"


def test_filter_lists_and_overlays(folder, tmp_path, monkeypatch):
    lines = [f'{{"key": "s0-{i}", "region_id": null, "keep": false}}\n' for i in range(1, 7)]
    lines += ['{"key": "s1-0", "region_id": null, "keep": false}\n']
    write_file(str(tmp_path), "keep.jsonl", "".join(lines).encode())
    opened = OpenedTars(monkeypatch)
    seen = keys_of(epoch_of(streamed(folder, filters=[tmp_path / "keep.jsonl"])))
    assert sorted(seen) == sorted(set(KEYS) - {f"s0-{i}" for i in range(1, 7)} - {"s1-0"})
    assert "train-000001" not in opened.names, "nothing of it is left"


def test_an_overlay_s_captions_are_those_of_its_images(tmp_path):
    samples = [tiny_sample("a"), tiny_sample("b", num_regions=1)]
    marker = write_shard(str(tmp_path), samples)
    write_overlay(str(tmp_path), marker, "blip2", caption_overlay(samples, "new"))
    dataset = Dataset.open(tmp_path, overlays=["blip2"])
    index = build_index(dataset, "train")
    order = OrderSettings(global_batch_size=2, stream=True)
    (batch,) = epoch_of(StreamedBatches(dataset, index, order=order, samples=SampleSettings()))
    captions = index.region_captions.take(batch.region_index.numpy()).to_pylist()
    assert sorted(captions) == ["new a shape 0", "new a shape 1", "new b shape 0"]


def damaged(tmp_path: Path, change: object) -> list[LoadedBatch]:
    """Return an epoch of two shards, the first of which was changed after the data set was opened."""
    folder = write(tmp_path, (6, 2))
    batches = streamed(folder, size=4)
    tar = tmp_path / "train-000000.tar"
    change(tar)
    return epoch_of(batches)


def cut(tar: Path) -> None:
    tar.write_bytes(tar.read_bytes()[: tar.stat().st_size // 2])


def scribble(tar: Path) -> None:
    content = bytearray(tar.read_bytes())
    at = content.index(b"s0-3.png")
    content[at : at + 512] = b"\xff" * 512
    tar.write_bytes(bytes(content))


def cut_in_a_header(tar: Path) -> None:
    content = tar.read_bytes()
    tar.write_bytes(content[: content.index(b"s0-3.png") + 100])


@pytest.mark.parametrize("change", [cut, scribble, cut_in_a_header, Path.unlink, lambda tar: tar.write_bytes(b"")])
def test_what_a_damaged_tar_does_not_give_is_named(tmp_path, change):
    loaded = damaged(tmp_path, change)
    skipped = dict(pair for batch in loaded for pair in batch.skipped)
    assert sorted([*keys_of(loaded), *skipped]) == sorted([*(f"s0-{i}" for i in range(6)), "s1-0", "s1-1"])
    assert {"s0-3", "s0-4", "s0-5"} <= set(skipped)
    assert all(f"{tmp_path}/train-000000.tar: " in why for why in skipped.values()), skipped
    assert all(why.endswith("write the shard again") for why in skipped.values()), skipped
    assert {"s1-0", "s1-1"} <= set(keys_of(loaded))


def test_an_image_of_another_length_than_its_row_says_is_not_used(tmp_path):
    batches = streamed(write(tmp_path, (3,)), size=4)
    index: SampleIndex = batches._index
    index.tar_size[1] += 1
    (batch,) = epoch_of(batches)
    assert [key for key, _ in batch.skipped] == ["s0-1"]
    assert "where the table says" in batch.skipped[0][1]


class BrokenStoreError(OSError):
    """A store that fails for good."""


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_error_of_a_store_keeps_its_sentence(folder, monkeypatch, num_workers):
    def failing(*arguments: object) -> Iterator[None]:
        raise BrokenStoreError("s3://bucket/train-000000.tar: no route; check the address")

    monkeypatch.setattr(Dataset, "open_tar", failing)
    batches = streamed(folder)
    with pytest.raises(BrokenStoreError) as raised:
        list(batches.loaded(0, 2, num_workers))
    assert str(raised.value) == "s3://bucket/train-000000.tar: no route; check the address"
    assert multiprocessing.active_children() == [], "workers, which no signal ends, would outlive the command"


def test_an_error_while_a_tar_is_read_keeps_its_sentence(folder, monkeypatch):
    from io import BytesIO

    class Failing(BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 2000:
                raise BrokenStoreError("the store is gone")
            return super().read(size)

    content = (Path(folder) / "train-000000.tar").read_bytes()
    monkeypatch.setattr(Dataset, "open_tar", lambda *_: Failing(content))
    with pytest.raises(BrokenStoreError) as raised:
        epoch_of(streamed(folder))
    assert str(raised.value) == "the store is gone"


def test_fewer_images_a_step_than_processes_are_refused(folder):
    with pytest.raises(TrainingError, match=r"--stream --global-batch-size 2: each of the 3 processes"):
        streamed(folder, size=2, world_size=3)


def test_a_process_without_a_shard_has_empty_batches(tmp_path):
    folder = write(tmp_path, (5,))
    parts = [streamed(folder, size=4, rank=number, world_size=2) for number in range(2)]
    loaded = [epoch_of(part) for part in parts]
    assert sorted(len(keys_of(of_part)) for of_part in loaded) == [0, 5]
    assert len(loaded[0]) == len(loaded[1]) == 3


def test_a_stream_can_be_sent_to_a_worker_while_it_reads(folder):
    batches = streamed(folder)
    expected = epoch_of(batches)
    batches = streamed(folder)
    batches[0]
    assert pickle.loads(pickle.dumps(batches))[1].keys == expected[1].keys


def test_no_more_tars_are_open_than_lanes(folder, monkeypatch):
    batches = streamed(folder, size=1)
    for step in range(batches.first_step(1)):
        batches[step]
        assert len(batches._readers) <= LANES
    assert all(isinstance(reader, TarReader) for _, _, reader in batches._readers.values())
