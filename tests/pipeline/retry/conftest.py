from pathlib import Path

import pytest

from pipeline.run import job
from tests.builders import jpeg, write_files

REGIONS = b'{"regions": [{"box": [2, 2, 30.3, 40], "label": "cat"}, {"box": [50, 10, 90, 60]}, {"box": [0, 0, 4, 4]}]}'
"""Two that are ok, one too small."""
BROKEN = b"no picture"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits are short."""
    monkeypatch.setattr(job, "_POLL_S", 0.01)


def write_pictures(folder: Path, num_images: int, broken: range | tuple[int, ...] = ()) -> Path:
    """Write `0000.jpg`, ... with regions; those of `broken` are no pictures."""
    for number in range(num_images):
        mend(folder, number)
        write_files(folder, {f"{number:04d}.json": REGIONS, f"{number:04d}.txt": f"picture {number}".encode()})
    for number in broken:
        write_files(folder, {f"{number:04d}.jpg": BROKEN})
    return folder


def mend(folder: Path, *numbers: int) -> None:
    """Put the pictures where they belong."""
    for number in numbers:
        write_files(folder, {f"{number:04d}.jpg": jpeg(number)})


def shard_files(output: Path) -> dict[str, bytes]:
    """The files of the shards by name."""
    return {path.name: path.read_bytes() for path in sorted(output.glob("train-*")) + sorted(output.glob("val-*"))}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Twelve pictures; three are broken: of the first and second of three shards."""
    return write_pictures(tmp_path / "source", 12, broken=(1, 5, 7))
