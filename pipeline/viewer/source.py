"""A data set opened for looking at: what cannot be read is listed as a problem, and the rest is shown."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec
from fsspec.implementations.local import LocalFileSystem

from schemas.dataset import Dataset
from schemas.filters import load_filter
from schemas.folder import DatasetError, Folder
from schemas.names import DATASET_JSON, ShardName, overlay_of_file
from schemas.overlays import open_overlay
from schemas.records import ShardMarker
from schemas.shards import DatasetIndex, being_repaired, check_file, decode_marker, find_shards


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something of the data set that cannot be shown, and what to do about it."""

    shard: str
    message: str


@dataclass(frozen=True, kw_only=True)
class OpenedData:
    """An open data set with what is wrong with it."""

    title: str
    """What the page calls it."""
    folder: Folder
    dataset: Dataset
    """Holds the shards whose marker and table are sound; a shard with a bad tar is among them."""
    overlays: tuple[str, ...]
    filters: tuple[str, ...]
    problems: list[Problem] = field(default_factory=list)
    """Grows when a query meets a table that cannot be read."""

    @property
    def is_local(self) -> bool:
        """Whether the data set lies in a folder of this machine."""
        return isinstance(self.folder.fs, LocalFileSystem)

    @property
    def in_place(self) -> bool:
        """Whether queries may read the tables as they lie: local, and nothing to be joined or taken away."""
        return self.is_local and not self.overlays and not self.filters


def open_source(path: str, *, overlays: Sequence[str] = (), filters: Sequence[str] = ()) -> OpenedData:
    """Open the data set at `path`, a folder or URL, as `Dataset.open` does, but go on past bad shards.

    Raises DatasetError when the folder is not there, when no shard of it can be read, and when an overlay or a filter
    list does not fit: those were asked for by name.
    """
    folder = Folder(path)
    sizes = folder.sizes()
    markers, problems = _sound_shards(folder, sizes)
    if not markers:
        if problems:
            first = problems[0].message
            raise DatasetError(f"{path}: none of its {len(problems)} shards can be read; the first: {first}")
        find_shards(folder, sizes)  # raises: it says what is expected there
    opened = [open_overlay(folder, name, shards=markers, sizes=sizes) for name in overlays]
    problems += [
        Problem(shard=str(shard), message=f"{shard}: {overlay.changes}")
        for overlay in opened
        for shard in sorted(overlay.changed)[:1]
    ]
    loaded = [load_filter(name) for name in filters]
    dataset = Dataset(folder, markers=markers, overlays=opened, filters=loaded)
    title = " + ".join([path.rstrip("/").rsplit("/", 1)[-1] or path, *overlays])
    return OpenedData(
        title=title,
        folder=folder,
        dataset=dataset,
        overlays=tuple(overlays),
        filters=tuple(filters),
        problems=problems,
    )


def is_overlay(path: str, name: str) -> bool:
    """Return whether the data set at `path` has an overlay called `name` for any shard (False where none are listed).

    Raises DatasetError when the folder is not there.
    """
    found = (overlay_of_file(file) for file in Folder(path).sizes() or ())
    return any(overlay is not None and overlay[1] == name for overlay in found)


def _shards_there(folder: Folder, sizes: Mapping[str, int] | None) -> list[ShardName]:
    """Return the shards of which any file is listed, or which `dataset.json` names where that can be read."""
    stems = {name.rpartition(".")[0] for name in sizes or () if name.endswith((".tar", ".parquet", ".json"))}
    (content,) = folder.read([DATASET_JSON])
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        stems.update(msgspec.json.decode(content or b"", type=DatasetIndex).shards)
    return sorted(shard for shard in map(ShardName.parse, stems) if shard is not None)


def _sound_shards(
    folder: Folder, sizes: Mapping[str, int] | None
) -> tuple[dict[ShardName, ShardMarker], list[Problem]]:
    """Return the markers of the shards whose table can be expected to be readable, and what is wrong elsewhere."""
    markers: dict[ShardName, ShardMarker] = {}
    problems = []
    shards = _shards_there(folder, sizes)
    for shard, content in zip(shards, folder.read([shard.marker for shard in shards]), strict=True):
        more = ""
        try:
            where = folder.where(shard.marker)
            if content is None:
                unfinished = f"{where}: not there, so the shard is unfinished; fetch it, or annotate again"
                raise DatasetError(being_repaired(folder, shard) or unfinished)
            marker = decode_marker(content, shard, where)
            if sizes is not None:
                check_file(folder, shard.parquet, expected_size=marker.parquet.size, sizes=sizes)
                markers[shard] = marker
                more = "; its rows are shown, its images may not be"
                check_file(folder, shard.tar, expected_size=marker.tar.size, sizes=sizes)
            markers[shard] = marker
        except DatasetError as error:
            problems.append(Problem(shard=str(shard), message=f"{error}{more}"))
    return markers, problems
