"""From shards to batches: each image once an epoch on any processes and workers; regions, crops and boxes as said."""

import multiprocessing
import resource
import shutil
from collections import Counter
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from schemas.boxes import as_boxes
from schemas.dataset import Dataset, DatasetError
from tests.shards import HEIGHT, WIDTH, caption_overlay, tiny_sample, write_file, write_overlay, write_shard
from tests.trainer.processes import run_processes
from trainer.data.batch import split_batch
from trainer.data.batches import Batches, load_batches, load_in_order
from trainer.data.decode import (
    UnusableSampleError,
    choose_regions,
    decode_sample,
    enlarge,
    flip,
    sample_generator,
    trim,
)
from trainer.data.index import build_index
from trainer.data.pixels import Preparation
from trainer.data.sampler import epoch_order, local_batch, steps_per_epoch
from trainer.errors import StoppedError, TrainingError
from trainer.hyperparameters import OrderSettings, SampleSettings
from trainer.loss.gather import rank

SHARD_SIZES = (7, 1, 3)
SAMPLES = SampleSettings()
PREPARATION = Preparation(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), image_size=(32, 48), crop_size=16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three uneven shards; image i of a shard has i modulo 4 regions."""
    path = tmp_path_factory.mktemp("shards")
    for shard, size in enumerate(SHARD_SIZES):
        samples = [tiny_sample(f"s{shard}-{i}", num_regions=i % 4) for i in range(size)]
        write_shard(str(path), samples, index=shard, dead=[f"s{shard}-dead"])
    write_shard(str(path), [tiny_sample("held-out")], split="val")
    return str(path)


def batches_of(folder: str, *, size: int = 4, samples: SampleSettings = SAMPLES, **place: int) -> Batches:
    dataset = Dataset.open(folder)
    order = OrderSettings(global_batch_size=size)
    return Batches(dataset, build_index(dataset, "train"), order=order, samples=samples, **place)


def test_the_index_lists_ok_images_and_their_regions(folder):
    index = build_index(Dataset.open(folder), "train")
    assert len(index) == sum(SHARD_SIZES)
    assert np.diff(index.region_start).tolist() == [i % 4 for size in SHARD_SIZES for i in range(size)]
    assert index.key(7) == "s1-0"
    assert index.shard.tolist() == [0] * 7 + [1] + [2] * 3
    # The second image's one region, then the third's two.
    assert index.region_captions[:3].to_pylist() == ["s0-1 shape 0", "s0-2 shape 0", "s0-2 shape 1"]
    assert index.boxes[2].tolist() == [1.0, 2.0, 11.5, 20.0625]
    assert len(set(index.region_text_ids.tolist())) == index.num_regions
    assert set(index.image_text_ids.tolist()) == {index.image_text_ids[0]}


def test_the_index_of_the_other_split(folder):
    assert build_index(Dataset.open(folder), "val").key(0) == "held-out"


def test_filter_lists_and_missing_captions(tmp_path):
    samples = [tiny_sample("a"), tiny_sample("b", image_caption=None), tiny_sample("c")]
    write_shard(str(tmp_path), samples)
    region = samples[0].record.regions[0].id
    lines = (
        f'{{"key": "c", "region_id": null, "keep": false}}\n{{"key": "a", "region_id": "{region}", "keep": false}}\n'
    )
    write_file(str(tmp_path), "keep.jsonl", lines.encode())
    index = build_index(Dataset.open(tmp_path, filters=[tmp_path / "keep.jsonl"]), "train")
    assert [index.key(i) for i in range(len(index))] == ["a", "b"]
    assert index.has_caption.tolist() == [True, False]
    assert index.region_captions.to_pylist() == ["a shape 1", "b shape 0", "b shape 1"]


def several_captions(folder: Path) -> str:
    """Write a shard whose images have three captions, none and one, and one of which an earlier release wrote."""
    samples = [tiny_sample(key, num_regions=1, image_caption=None if key == "none" else "one") for key in CAPTIONED]
    for at, captions in ((0, ["one", "One!", "three"]), (3, [])):
        record = msgspec.structs.replace(samples[at].record, image_captions=captions)
        samples[at] = replace(samples[at], record=record)
    write_shard(str(folder), samples)
    return str(folder)


CAPTIONED = ("many", "none", "single", "older")


def test_the_index_has_all_captions(tmp_path):
    index = build_index(Dataset.open(several_captions(tmp_path)), "train")
    assert index.caption_start.tolist() == [0, 3, 3, 4, 5]
    assert index.image_captions.to_pylist() == ["one", "One!", "three", "one", "one"]
    ids = index.image_text_ids.tolist()
    assert ids[0] == ids[1] == ids[3] == ids[4] != ids[2]
    assert index.has_caption.tolist() == [True, False, True, True]


def test_a_step_takes_one_caption_of_several_by_seed_and_epoch(tmp_path):
    dataset = Dataset.open(several_captions(tmp_path))
    index = build_index(dataset, "train")

    def taken(seed: int) -> list[dict[str, int]]:
        order = OrderSettings(global_batch_size=4, seed=seed)
        batches = Batches(dataset, index, order=order, samples=SampleSettings())
        return [dict(zip(batches[e].keys, batches[e].caption_index.tolist(), strict=True)) for e in range(20)]

    first = taken(0)
    assert first == taken(0) != taken(1)
    assert {epoch["many"] for epoch in first} == {0, 1, 2}
    assert all((epoch["none"], epoch["single"], epoch["older"]) == (-1, 3, 4) for epoch in first)
    pieces = split_batch(Batches(dataset, index, order=OrderSettings(), samples=SampleSettings())[0], 3)
    assert [len(piece.caption_index) for piece in pieces] == [3, 1]


def test_an_overlay_s_captions_replace_the_shards_own(tmp_path):
    samples = [tiny_sample("a"), tiny_sample("b", num_regions=1)]
    marker = write_shard(str(tmp_path), samples)
    write_overlay(str(tmp_path), marker, "blip2", caption_overlay(samples, "new"))
    plain, changed = (build_index(Dataset.open(tmp_path, overlays=names), "train") for names in ([], ["blip2"]))
    assert changed.region_captions.to_pylist() == ["new a shape 0", "new a shape 1", "new b shape 0"]
    assert not set(plain.region_text_ids.tolist()) & set(changed.region_text_ids.tolist())


def test_a_cut_tar_is_refused_at_the_door(tmp_path):
    write_shard(str(tmp_path), [tiny_sample("a")])
    tar = tmp_path / "train-000000.tar"
    tar.write_bytes(tar.read_bytes()[:700])
    with pytest.raises(DatasetError, match=r"train-000000.tar: 700 bytes where its marker says"):
        Dataset.open(tmp_path)


def test_nothing_usable_is_an_error_with_the_first_reason(tmp_path):
    write_shard(str(tmp_path), [], dead=["broken"])
    with pytest.raises(TrainingError, match="broken, is dead: decode: not an image"):
        build_index(Dataset.open(tmp_path), "train")
    with pytest.raises(TrainingError, match="no such shard, only train"):
        build_index(Dataset.open(tmp_path), "val")


@pytest.mark.parametrize("value", [np.nan, 1000.0])
def test_a_box_that_is_none_is_named(tmp_path, value, monkeypatch):
    write_shard(str(tmp_path), [tiny_sample("a")])
    rows = Dataset.regions

    def broken(*arguments):
        table = rows(*arguments)
        column = pc.if_else(pc.is_valid(table["x1"]), pa.scalar(value, pa.float32()), table["x1"])
        return table.set_column(table.column_names.index("x1"), "x1", column)

    monkeypatch.setattr(Dataset, "regions", broken)
    with pytest.raises(DatasetError, match=r"key a, region .*not a box inside 48 x 32"):
        build_index(Dataset.open(tmp_path), "train")


def test_a_table_that_changed_is_refused_at_the_door(tmp_path):
    write_shard(str(tmp_path), [tiny_sample("a")])
    table = pq.read_table(tmp_path / "train-000000.parquet")
    pq.write_table(table.drop_columns(["caption"]), tmp_path / "train-000000.parquet")
    with pytest.raises(DatasetError, match="marker says"):
        Dataset.open(tmp_path)


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    global_batch_size=st.integers(1, 20),
    world_size=st.integers(1, 5),
    shuffle=st.sampled_from(["global", "shards"]),
    epoch=st.integers(0, 3),
)
def test_each_image_comes_once_an_epoch(sizes, global_batch_size, world_size, shuffle, epoch):
    shard = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    order = epoch_order(shard, seed=5, epoch=epoch, shuffle=shuffle)
    seen, steps = [], steps_per_epoch(len(shard), global_batch_size)
    for step in range(steps):
        parts = [
            local_batch(
                order, step_in_epoch=step, global_batch_size=global_batch_size, rank=rank, world_size=world_size
            )
            for rank in range(world_size)
        ]
        joined = np.concatenate(parts)
        assert joined.tolist() == order[step * global_batch_size :][:global_batch_size].tolist()
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        seen += joined.tolist()
    assert sorted(seen) == list(range(len(shard)))
    assert len(joined) > 0


def test_epochs_differ_and_seeds_too():
    shard = np.zeros(50, dtype=np.int32)
    orders = [epoch_order(shard, seed=s, epoch=e, shuffle="global").tolist() for s, e in ((0, 0), (0, 1), (1, 0))]
    assert len({tuple(order) for order in orders}) == 3


def test_shard_order_opens_few_shards_at_a_time():
    shard = np.repeat(np.arange(40, dtype=np.int32), 10)
    order = epoch_order(shard, seed=0, epoch=0, shuffle="shards")
    opened = [set(shard[order[first : first + 80]].tolist()) for first in range(0, 400, 80)]
    assert [len(group) for group in opened] == [8] * 5
    assert sorted(set.union(*opened)) == list(range(40))


def _keys_of_an_epoch(folder: str) -> list[str]:
    batches = batches_of(folder, rank=rank(), world_size=2)
    loaded = load_batches(batches, first_step=0, last_step=batches.first_step(1), num_workers=2)
    return [key for batch in loaded for key in batch.keys]


def test_two_processes_with_two_workers_see_each_image_once(folder):
    first, second = run_processes(_keys_of_an_epoch, 2, folder)
    assert Counter(first + second) == Counter(f"s{s}-{i}" for s, size in enumerate(SHARD_SIZES) for i in range(size))
    assert abs(len(first) - len(second)) <= 1


def _load_with_few_files(folder: str, num_workers: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    batches = batches_of(folder, size=20)
    loaded = load_batches(batches, first_step=0, last_step=batches.first_step(1), num_workers=num_workers)
    kept = list(loaded)  # as slow steps let batches wait
    assert sum(len(batch.keys) for batch in kept) == 150


@pytest.mark.parametrize("num_workers", [0, 2])
def test_many_shards_need_few_open_files(tmp_path, num_workers):
    for shard in range(150):
        write_shard(str(tmp_path), [tiny_sample(f"s{shard}")], index=shard)
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_load_with_few_files, args=(str(tmp_path), num_workers))
    process.start()
    process.join(60)
    if process.is_alive():
        process.kill()
    assert process.exitcode == 0


def test_more_processes_and_workers_than_images(tmp_path):
    write_shard(str(tmp_path), [tiny_sample("only")])
    parts = [batches_of(str(tmp_path), rank=rank, world_size=3) for rank in range(3)]
    assert [part.first_step(1) for part in parts] == [1, 1, 1]
    loaded = [next(load_batches(part, first_step=0, last_step=1, num_workers=0)) for part in parts]
    assert [batch.keys for batch in loaded] == [("only",), (), ()]
    assert PREPARATION.images(loaded[1]).shape == (0, 3, 32, 48)
    assert PREPARATION.crops(loaded[1]).shape == (0, 3, 16, 16)


def test_a_batch_is_its_step_s_alone(folder):
    from_start = list(load_batches(batches_of(folder), first_step=0, last_step=6, num_workers=0))
    resumed = list(load_batches(batches_of(folder), first_step=4, last_step=6, num_workers=2))
    for expected, found in zip(from_start[4:], resumed, strict=True):
        assert expected.keys == found.keys
        assert torch.equal(expected.pixels, found.pixels)
        assert torch.equal(expected.region_index, found.region_index)


def test_regions_follow_their_images(folder):
    batches = batches_of(folder, size=11)
    index = build_index(Dataset.open(folder), "train")
    batch = batches[0]
    for image, region, box in zip(batch.region_image_index, batch.region_index, batch.boxes_norm, strict=True):
        assert index.region_captions[int(region)].as_py().startswith(batch.keys[int(image)] + " ")
        expected = index.boxes[int(region)] / [WIDTH, HEIGHT, WIDTH, HEIGHT]
        assert box.tolist() == pytest.approx(expected.tolist())
    assert len(batch.region_index) == index.num_regions


def test_pieces_of_a_batch_are_the_batch(folder):
    batch = batches_of(folder, size=11)[0]
    pieces = split_batch(batch, 3)
    assert [len(piece.keys) for piece in pieces] == [3, 3, 3, 2]
    for prepare in (PREPARATION.images, PREPARATION.crops):
        assert torch.equal(torch.cat([prepare(piece) for piece in pieces]), prepare(batch))
    assert torch.equal(torch.cat([piece.region_index for piece in pieces]), batch.region_index)


def test_an_image_that_cannot_be_used_is_skipped_and_named(tmp_path):
    damaged = replace(tiny_sample("bad"), image=tiny_sample("bad").image[:60])
    other_size = tiny_sample("other")
    write_shard(str(tmp_path), [tiny_sample("good"), damaged, replace(other_size, image=_png(9, 9))])
    batch = batches_of(str(tmp_path))[0]
    assert batch.keys == ("good",)
    assert {key: why.split()[0] for key, why in batch.skipped} == {"bad": "cannot", "other": "is"}


def test_a_tar_that_vanishes_while_training_skips_its_images(folder, tmp_path):
    copied = tmp_path / "copy"
    shutil.copytree(folder, copied)
    batches = batches_of(str(copied), size=11)
    (copied / "train-000001.tar").unlink()
    assert [key for key, _ in batches[0].skipped] == ["s1-0"]


def _png(width: int, height: int) -> bytes:
    file = BytesIO()
    Image.new("RGB", (width, height)).save(file, "PNG")
    return file.getvalue()


def test_the_choice_of_regions_is_the_key_s_and_the_epoch_s():
    def chosen(key: str, epoch: int) -> list[int]:
        return choose_regions(30, 5, sample_generator(key, epoch=epoch, seed=0)).tolist()

    assert chosen("a", 0) == chosen("a", 0)
    assert len({tuple(chosen(key, epoch)) for key, epoch in (("a", 0), ("a", 1), ("b", 0))}) == 3
    counts = Counter(region for epoch in range(300) for region in chosen("a", epoch))
    assert len(counts) == 30
    assert max(counts.values()) < 2 * min(counts.values())


@given(st.integers(0, 9), st.integers(1, 9))
def test_chosen_regions_are_distinct_and_ascending(num_regions, max_regions):
    chosen = choose_regions(num_regions, max_regions, sample_generator("k", epoch=0, seed=0)).tolist()
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(num_regions, max_regions)


def test_crops_are_half_as_large_again_and_clipped():
    boxes = as_boxes([[10, 10, 20, 30], [0, 0, 4, 4], [39.5, 31.5, 40, 32]])
    # Enlarged: 7.5..22.5 x 5..32 (clipped), -1..5 both ways, 39.375..40 x 31.375..32. Edges round to the nearest pixel,
    # halves to even, as Pillow's `crop` does with what the official code gives it.
    assert enlarge(boxes, 1.5, width=40, height=32).tolist() == [[8, 5, 22, 32], [0, 0, 5, 5], [39, 31, 40, 32]]


@given(st.tuples(*[st.floats(0, 1, width=32)] * 4))
def test_crops_are_those_that_pillow_cuts(corners):
    """In the official code's arithmetic: a quarter of each side more on both sides, clipped, then `Image.crop`."""
    x0, x1 = sorted(c * 40 for c in corners[:2])
    y0, y1 = sorted(c * 32 for c in corners[2:])
    width, height = x1 - x0, y1 - y0
    left, top = max(x0 - 0.25 * width, 0), max(y0 - 0.25 * height, 0)
    right, bottom = min(x1 + 0.25 * width, 40), min(y1 + 0.25 * height, 32)
    expected = [round(edge) for edge in (left, top, right, bottom)]
    (found,) = enlarge(np.array([[x0, y0, x1, y1]]), 1.5, width=40, height=32).tolist()
    if expected[0] < expected[2] and expected[1] < expected[3]:
        assert np.abs(np.subtract(found, expected)).max() <= (0 if _is_clear(left, top, right, bottom) else 1)


def _is_clear(*edges: float) -> bool:
    """Say whether no edge is so near a half that the order of additions decides."""
    return all(abs(edge % 1 - 0.5) > 1e-6 for edge in edges)


def test_regions_outside_the_area_limits_are_not_chosen():
    boxes = as_boxes([[0, 0, 8, 8], [0, 0, 7, 8], [0, 0, 20, 20], [0, 0, 21, 20]])
    settings = SampleSettings(min_area_px=64, max_area_px=400, max_regions=2)
    sample = decode_sample(_png(30, 30), boxes, size=(30, 30), key="a", epoch=0, seed=0, settings=settings)
    assert sample.regions.tolist() == [0, 2]
    unlimited = decode_sample(_png(30, 30), boxes, size=(30, 30), key="a", epoch=0, seed=0, settings=SampleSettings())
    assert unlimited.regions.tolist() == [0, 1, 2, 3]


def test_area_limits_that_let_nothing_through_are_refused():
    with pytest.raises(ValueError, match="--min-area-px 5 --max-area-px 4"):
        SampleSettings(min_area_px=5, max_area_px=4)


@given(
    st.tuples(*[st.floats(0, 1, width=32)] * 4),
    st.floats(0.1, 3),
)
def test_crops_always_hold_a_pixel(corners, scale):
    x0, x1 = sorted(corners[:2])
    y0, y1 = sorted(corners[2:])
    ((left, top, right, bottom),) = enlarge(as_boxes([x0 * 40, y0 * 32, x1 * 40, y1 * 32]), scale, width=40, height=32)
    assert 0 <= left < right <= 40
    assert 0 <= top < bottom <= 32


def marked_image() -> tuple[np.ndarray, np.ndarray]:
    """Return an image that is white in its one box alone."""
    pixels = np.zeros((20, 30, 3), dtype=np.uint8)
    pixels[4:9, 2:12] = 255
    return pixels, as_boxes([2, 4, 12, 9])


def inside(pixels: np.ndarray, box: np.ndarray) -> np.ndarray:
    x0, y0, x1, y1 = box.astype(int)
    return pixels[y0:y1, x0:x1]


@pytest.mark.parametrize("change", [flip, lambda *image: trim(*image, (1, 2, 25, 18))[:2]], ids=["flip", "trim"])
def test_boxes_move_with_what_they_hold(change):
    pixels, boxes = change(*marked_image())
    assert inside(pixels, boxes[0]).all()
    assert inside(pixels, boxes[0]).sum() == pixels.sum()


def test_regions_that_are_mostly_cut_away_go():
    _pixels, boxes, kept = trim(*marked_image(), (8, 0, 30, 20))
    assert (len(boxes), kept.tolist()) == (0, [False])
    _, boxes, _ = trim(*marked_image(), (6, 0, 30, 20))
    assert boxes.tolist() == [[0, 4, 6, 9]]


def test_flip_and_trim_are_the_key_s():
    pixels, boxes = marked_image()
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    settings = SampleSettings(flip=True, trim=0.2)
    seen = [
        decode_sample(file.getvalue(), boxes, size=(30, 20), key=key, epoch=0, seed=0, settings=settings)
        for key in ("a", "a", "b", "c", "d")
    ]
    assert np.array_equal(seen[0].pixels, seen[1].pixels)
    assert len({sample.pixels.tobytes() for sample in seen}) > 2
    for sample in seen:
        assert inside(sample.pixels, sample.boxes[0]).all()


def test_a_cut_image_is_unusable():
    content = tiny_sample("a").image[:-30]
    with pytest.raises(UnusableSampleError, match="cannot be decoded"):
        decode_sample(content, as_boxes([]), size=(48, 32), key="a", epoch=0, seed=0, settings=SampleSettings())


def test_images_and_crops_are_what_pillow_makes_of_them(folder):
    batch = batches_of(folder, size=11)[0]
    samples = {Path(sample.key).name: sample for sample in _all_samples(folder)}
    images, crops = PREPARATION.images(batch), PREPARATION.crops(batch)
    pictures = [Image.open(BytesIO(samples[key].image)).convert("RGB") for key in batch.keys]
    for found, picture in zip(images, pictures, strict=True):
        assert_same(found, picture.resize((48, 32), Image.Resampling.BILINEAR))
    for found, image, window in zip(crops, batch.region_image_index.tolist(), batch.crop_boxes.tolist(), strict=True):
        assert_same(found, pictures[image].crop(window).resize((16, 16), Image.Resampling.BILINEAR))


def assert_same(found: torch.Tensor, picture: Image.Image) -> None:
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255
    expected = (pixels - torch.tensor([0.5, 0.4, 0.3])[:, None, None]) / torch.tensor([0.2, 0.3, 0.4])[:, None, None]
    # A level of 255 either way, in the narrowest channel's standard deviations.
    assert (found - expected).abs().max() <= 1 / 255 / 0.2 + 1e-5


def _all_samples(folder: str):
    dataset = Dataset.open(folder)
    return [sample for shard in dataset.shards for sample in dataset.samples(shard)]


class _NoRoom(torch.utils.data.Dataset):
    """Items as a worker makes them where shared memory is full: a fake of the system's refusal alone."""

    def __getitem__(self, number):
        def refuses(_: torch.Tensor) -> None:
            raise RuntimeError("unable to allocate shared memory(shm): No space left on device (28)")

        torch.Tensor.share_memory_ = refuses  # in the worker process, which ends with the test
        return SimpleNamespace(pixels=torch.zeros(3))


def test_shared_memory_without_room_ends_the_run_with_a_sentence_and_does_not_hang_it():
    with pytest.raises(StoppedError, match=r"shared memory has no room .*--shm-size.*fewer --workers"):
        list(load_in_order(_NoRoom(), [0, 1], 1))
