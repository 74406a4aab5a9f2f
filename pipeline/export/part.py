"""The files that one shard becomes. A part exists when its marker does, which is written last.

OUT/.export/plan.json                   what OUT is an export of
OUT/.export/parts/train-000000.json     the marker: files with their sizes, counts
OUT/.export/parts/train-000000.NAME     lines for a file that is joined of all parts
OUT/.export/done.json                   all is written; the lines are gone
"""

import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import msgspec

from pipeline.export.survey import Survey
from schemas.dataset import Dataset, Sample
from schemas.names import ShardName

FOLDER = ".export"
"""Hidden, so that no reader takes it for data."""
PARTS = f"{FOLDER}/parts"


class Counts(msgspec.Struct, kw_only=True):
    """What a part, or all of OUT, holds, and what it does not."""

    images: int = 0
    regions: int = 0
    left_out: dict[str, int] = {}
    """Number by what is left out and why, in words."""

    def leave_out(self, what: str, count: int = 1) -> None:
        """Count `count` as left out."""
        if count:
            self.left_out[what] = self.left_out.get(what, 0) + count

    def add(self, other: "Counts") -> None:
        """Add `other` to these counts."""
        self.images += other.images
        self.regions += other.regions
        for what, count in other.left_out.items():
            self.leave_out(what, count)


class _Marker(msgspec.Struct, kw_only=True):
    counts: Counts
    files: dict[str, int]
    """Size in bytes by name in OUT."""


class Part:
    """The files of a shard while they are written."""

    def __init__(self, out: Path, shard: ShardName, *, dataset: Dataset, survey: Survey) -> None:
        self.shard, self.dataset, self.survey = shard, dataset, survey
        self.counts = Counts()
        self._out = out
        self._stack = ExitStack()
        self._names: list[str] = []

    def __enter__(self) -> "Part":
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def open(self, name: str) -> BinaryIO:
        """Return a new file of this name in OUT; it is closed with the part."""
        self._names.append(name)
        path = self._out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return self._stack.enter_context(path.open("wb"))

    def open_lines(self, name: str) -> BinaryIO:
        """Return a new file for lines that `join` finds under this name."""
        return self.open(f"{PARTS}/{self.shard}.{name}")

    def add_image(self, sample: Sample, folder: str) -> str:
        """Write the stored image's bytes into a folder of OUT; return its name in it."""
        name = f"{sample.key}.{sample.suffix}"
        self.write_bytes(f"{folder}/{name}", sample.image)
        return name

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write a small file of this name in OUT."""
        path = self._out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self._names.append(name)

    def finish(self) -> Counts:
        """Make all files durable, then write the marker; return the part's counts."""
        self._stack.close()
        os.sync()
        sizes = {name: (self._out / name).stat().st_size for name in self._names}
        write_whole(self._out / PARTS / f"{self.shard}.json", [_encode(_Marker(counts=self.counts, files=sizes))])
        return self.counts


def finished(out: Path, shard: ShardName, *, with_lines: bool = True) -> Counts | None:
    """Return the counts of a part that is there whole; None where it must be written.

    Without `with_lines`, files of lines may be gone, as they are once all is done.
    """
    try:
        marker = msgspec.json.decode((out / PARTS / f"{shard}.json").read_bytes(), type=_Marker)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
    wanted = {name: size for name, size in marker.files.items() if with_lines or not name.startswith(PARTS)}
    return marker.counts if are_whole(out, wanted) else None


def are_whole(out: Path, sizes: Mapping[str, int]) -> bool:
    """Return whether files of OUT are there, each as large as it was written."""
    try:
        return all((out / name).stat().st_size == size for name, size in sizes.items())
    except FileNotFoundError:
        return False


def write_whole(path: Path, pieces: Iterable[bytes]) -> None:
    """Write a file, of pieces of any size, so that a reader sees all of it or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.new")
    with temporary.open("wb") as file:
        file.writelines(pieces)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _encode(marker: _Marker) -> bytes:
    return msgspec.json.encode(marker, order="deterministic")
