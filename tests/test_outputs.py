"""A data set opens in the libraries people have: webdataset, wids, `datasets`, GNU tar; each finds what was written.

The data set mixes JPEG, PNG and WebP, has images without a caption or without regions, a shard without a sample, and a
validation split.
"""

import gc
import importlib.util
import json
import os
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

import datasets
import pytest
import webdataset

from schemas.dataset import Dataset, Sample
from schemas.records import encode
from tests.builders import Members, annotate, image_bytes, jpeg, members, read_rows, write_tar

BOXES = ((2.0, 2.0, 30.3125, 40.0), (50.0, 10.0, 90.0, 60.0))
IMAGES = {"jpg", "png", "webp"}
Item = TypeVar("Item")
SPLITS = {"train": "train", "val": "validation"}
"""Our name of a split and Hugging Face's."""


def sample(key: str, suffix: str, image: bytes, *, caption: str | None, num_regions: int) -> Members:
    """The members of a source sample; without regions it has no `.json` at all."""
    made: Members = [(f"{key}.{suffix}", image)]
    if caption is not None:
        made.append((f"{key}.txt", caption.encode()))
    if num_regions:
        record = {"regions": [{"box": box, "label": None} for box in BOXES[:num_regions]]}
        made.append((f"{key}.json", json.dumps(record).encode()))
    return made


def source_samples(tar: int) -> Iterator[Members]:
    """Twelve samples; the first of a tar differ in their members, which is what readers infer a schema from."""
    png, webp = image_bytes("PNG"), image_bytes("WEBP", lossless=True)
    kinds = [("jpg", jpeg(tar)), ("png", png), ("webp", webp)]
    for number in range(12):
        suffix, image = kinds[(number + tar) % 3]
        caption = None if number % 4 == 0 else f"picture {number}\nof \N{DOG}"
        yield sample(f"s{tar}-{number:02d}", suffix, image, caption=caption, num_regions=number % 3)


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("outputs")
    for tar in range(3):
        write_tar(base / "source" / f"{tar}.tar", source_samples(tar))
    write_tar(base / "source" / "3.tar", [members("dead", image=b"words")])
    annotate(base / "source", base / "out", "--val-fraction", "0.3")
    return base / "out"


@pytest.fixture(scope="module")
def samples(output: Path) -> dict[str, dict[str, Sample]]:
    """What was written: samples by key, by split."""
    dataset = Dataset.open(output)
    return {
        split: {
            found.key: found
            for shard in dataset.shards
            if shard.split == split
            for found in dataset.samples(shard, verify=True)
        }
        for split in SPLITS
    }


def tars(output: Path, split: str) -> list[str]:
    return [str(path) for path in sorted(output.glob(f"{split}-*.tar"))]


def test_the_data_set_is_as_mixed_as_it_should_be(output: Path, samples: dict[str, dict[str, Sample]]):
    found = [found for split in SPLITS for found in samples[split].values()]
    assert len(found) == 36
    assert all(samples.values())
    assert {found.suffix for found in found} == IMAGES
    assert {found.image_caption is None for found in found} == {True, False}
    assert {found.record.num_regions for found in found} == {0, 1, 2}
    assert 0 in json.loads((output / "sizes.json").read_text()).values()


@pytest.mark.parametrize("split", SPLITS)
def test_gnu_tar_lists_the_members(output: Path, samples: dict[str, dict[str, Sample]], split: str):
    names = [
        name
        for tar in tars(output, split)
        for name in subprocess.run(["tar", "tf", tar], check=True, capture_output=True, text=True).stdout.split()
    ]
    assert {name.partition(".")[0] for name in names} == set(samples[split])
    assert sum(name.endswith(".json") for name in names) == len(samples[split])


# webdataset leaves the tars it has read for the garbage collector to close
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("split", SPLITS)
def test_webdataset_reads_every_sample(output: Path, samples: dict[str, dict[str, Sample]], split: str):
    found = {}
    for raw in webdataset.WebDataset(tars(output, split), shardshuffle=False, empty_check=False).decode("pil"):
        (suffix,) = raw.keys() & IMAGES
        found[raw["__key__"]] = (suffix, raw[suffix].size, raw.get("txt"), raw["json"])
    gc.collect()
    assert found == {
        key: (wanted.suffix, (96, 64), wanted.image_caption, as_json(wanted)) for key, wanted in samples[split].items()
    }


@pytest.mark.parametrize(("split", "index"), [("train", "index.json"), ("val", "index-val.json")])
@pytest.mark.usefixtures("torch")
def test_wids_reads_every_sample(
    output: Path, samples: dict[str, dict[str, Sample]], tmp_path: Path, split: str, index: str
):
    wids = importlib.import_module("wids")
    dataset = wids.ShardListDataset(str(output / index), cache_dir=str(tmp_path), keep=True, transformations=[])
    found = {}
    for number in range(len(dataset)):
        raw = dataset[number]
        (suffix,) = {name.removeprefix(".") for name in raw} & IMAGES
        caption = raw[".txt"].read().decode() if ".txt" in raw else None
        found[raw["__key__"]] = (suffix, raw[f".{suffix}"].read(), caption, json.load(raw[".json"]))
    dataset.close()
    assert found == {
        key: (wanted.suffix, wanted.image, wanted.image_caption, as_json(wanted))
        for key, wanted in samples[split].items()
    }
    shards = json.loads((output / index).read_text())["shardlist"]
    assert [shard["filesize"] for shard in shards] == [Path(tar).stat().st_size for tar in tars(output, split)]


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where torch is not installed, a fake of the little that wids takes of it (it declares no need of torch)."""
    if importlib.util.find_spec("torch") is not None:
        return
    fake_data = types.ModuleType("torch.utils.data")
    fake_data.Dataset = fake_data.Sampler = FakeDataset  # type: ignore[attr-defined]
    fakes = {"torch.utils.data": fake_data}
    for name in ("torch", "torch.distributed", "torch.utils"):
        fakes[name] = types.ModuleType(name)
    fakes["torch"].distributed = fakes["torch.distributed"]  # type: ignore[attr-defined]
    for name, module in fakes.items():
        monkeypatch.setitem(sys.modules, name, module)


class FakeDataset(Generic[Item]):
    """Stands for the two base classes of torch without any behaviour of their own."""


@pytest.fixture(scope="module")
def loaded(output: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What `datasets.load_dataset(OUTPUT)` gives, read by another process: settings of offline use are import-time."""
    cache = tmp_path_factory.mktemp("cache")
    code = "import sys, datasets; datasets.load_dataset(sys.argv[1], cache_dir=sys.argv[2]).save_to_disk(sys.argv[3])"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(cache / "home")}
    command = [sys.executable, "-c", code, str(output), str(cache / "cache"), str(cache / "saved")]
    subprocess.run(command, check=True, env=environment, capture_output=True)
    return datasets.load_from_disk(str(cache / "saved"))


@pytest.mark.parametrize("split", SPLITS)
def test_datasets_reads_every_sample_with_boxes_and_captions(
    loaded: Any, samples: dict[str, dict[str, Sample]], split: str
):
    rows = loaded[SPLITS[split]]
    assert rows["__key__"][:] == list(samples[split])
    for row in rows:
        wanted = samples[split][row["__key__"]]
        assert {suffix for suffix in IMAGES if row[suffix] is not None} == {wanted.suffix}
        assert row[wanted.suffix].size == (wanted.record.width, wanted.record.height)
        assert row["txt"] == wanted.image_caption
        assert row["json"] == as_json(wanted)


def test_boxes_and_captions_are_typed_features(loaded: Any):
    region = loaded["train"].features["json"]["regions"].feature
    assert (region["box"].feature.dtype, region["caption"].dtype) == ("float32", "string")
    assert isinstance(loaded["train"].features["webp"], datasets.Image)


def as_json(sample: Sample) -> Any:
    """The sample's record as a JSON reader finds it."""
    return json.loads(encode(sample.record))


def test_the_table_says_where_in_the_tar_each_image_lies(output: Path, samples: dict[str, dict[str, Sample]]):
    everything = samples["train"] | samples["val"]
    rows = [row for row in read_rows(output) if row["tar_offset"] is not None]
    assert {row["key"] for row in rows} == set(everything)
    for row in rows:
        tar = (output / f"{row['shard']}.tar").read_bytes()
        assert tar[row["tar_offset"] :][: row["tar_size"]] == everything[row["key"]].image
