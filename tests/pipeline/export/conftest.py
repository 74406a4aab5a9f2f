from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from schemas.hashes import sha256
from tests.builders import Outcome, run
from tests.shards import TinySample, tiny_sample, write_index, write_shard

Export = Callable[..., Outcome]


def with_regions(sample: TinySample, *changes: dict[str, Any]) -> TinySample:
    """Return the sample with fields of its first regions replaced."""
    regions = list(sample.record.regions)
    for position, change in enumerate(changes):
        regions[position] = msgspec.structs.replace(regions[position], **change)
    return TinySample(
        record=msgspec.structs.replace(sample.record, regions=regions),
        image=sample.image,
        suffix=sample.suffix,
        filtered=sample.filtered,
    )


def write_data(url: str | Path, splits: dict[str, list[list[TinySample]]]) -> str:
    """Write a data set of shards of samples; return its address."""
    written = [
        write_shard(str(url), samples, split=split, index=index)
        for split, shards in splits.items()
        for index, samples in enumerate(shards)
    ]
    write_index(str(url), [marker.shard for marker in written])
    return str(url)


def samples() -> dict[str, list[list[TinySample]]]:
    """Three shards, two splits; all kinds of images, one without regions, one without a caption."""
    return {
        "train": [
            [tiny_sample("a"), with_regions(tiny_sample("b", suffix="jpg"), {"label": None, "caption": "naïve 日本"})],
            [tiny_sample("c", num_regions=0), tiny_sample("d", num_regions=3, suffix="webp", image_caption=None)],
        ],
        "val": [[tiny_sample("e", num_regions=1)]],
    }


@pytest.fixture
def data(tmp_path: Path) -> str:
    return write_data(tmp_path / "data", samples())


@pytest.fixture
def export(data: str, tmp_path: Path) -> Export:
    """Run the command on `data` into OUT, `tmp_path / "out"`."""

    def export(to: str, *flags: str, out: str = "out") -> Outcome:
        return run("export", data, tmp_path / out, "--to", to, *flags)

    return export


def tree(folder: Path) -> dict[str, str]:
    """Return the digest of each file below a folder, by name."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): sha256(path.read_bytes()) for path in files}
