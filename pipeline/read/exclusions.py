"""What `--filter` lists take away while annotating: images as they are read, given regions as they are selected.

    FILE... --load_exclusions--> Exclusions --Configuration.read--> every worker, whatever its engine and machine
                             --> an error where the inputs are shards of ours and a row names nothing in them

Keys are those of OUTPUT: a lone INPUT's own, and with its prefix where there are several. Ids of regions are those of
the INPUT's records. Contents travel, not paths: a list that grows while a job runs cannot change what the job does, and
workers elsewhere need not reach it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.read import open_source
from pipeline.read.annotated import Annotated
from pipeline.read.base import Source
from pipeline.read.coco import Coco
from pipeline.read.decode import DecodeSettings
from pipeline.read.folder import OBJECTS_OF, ImageFolder
from pipeline.read.keys import as_key, input_prefixes, with_prefix
from pipeline.read.parquet import Parquet
from pipeline.read.spec import canonical
from pipeline.read.voc import Voc
from pipeline.read.webdataset import WebDataset
from pipeline.read.yolo import Yolo
from schemas.filters import FilterList, check_rows, load_filter
from schemas.folder import DatasetError
from schemas.hashes import fingerprint

GIVEN = "manual"
"""The proposer that takes the INPUT's own regions: only those have ids that a list made before can name."""


@dataclass(frozen=True, kw_only=True)
class Exclusions:
    """The images and regions that any of some filter lists takes away."""

    images: frozenset[str] = frozenset()
    """Keys."""
    regions: frozenset[tuple[str, str]] = frozenset()
    """(key, region id)."""

    def __bool__(self) -> bool:
        return bool(self.images or self.regions)

    def as_json(self, *, proposer: str) -> dict[str, Any]:
        """Return what is fingerprinted: how much is taken away, and the sha256 of what. Empty where that is nothing.

        Equal for the same decisions in other words: as several lists, as Parquet, with notes.
        """
        regions = sorted(self.regions) if proposer == GIVEN else []
        if not self.images and not regions:
            return {}
        digest = fingerprint({"images": sorted(self.images), "regions": regions})
        return {"filter": {"images": len(self.images), "regions": len(regions), "sha256": digest}}


@dataclass(frozen=True, kw_only=True)
class ReadFlags(DecodeSettings):
    """How samples are read, as flags say it."""

    allow: Sequence[str] = ()
    """Folders outside of INPUT in which files are read that its tables name (`pipeline.read.names`)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.allow, str):
            raise ValueError(f"read.allow is {self.allow!r}, but must be a list of folders")  # noqa: TRY004 - a flag's value


@dataclass(frozen=True, kw_only=True)
class ReadSettings(ReadFlags):
    """How samples are read: where from, what is refused before it is decoded, and what filter lists take away."""

    excluded: Exclusions = field(default_factory=Exclusions)

    def limits(self) -> dict[str, Any]:
        """Return the settings of decoding alone, as they are fingerprinted."""
        return {entry.name: getattr(self, entry.name) for entry in fields(DecodeSettings)}


def load_exclusions(paths: Sequence[str], inputs: Sequence[str] | None, *, proposer: str) -> Exclusions:
    """Return what the filter lists at `paths` take away, checked against `inputs`; None leaves that out.

    Raises DatasetError for a list that cannot be read or named what is not there, SourceError for an unusable input.
    """
    if not paths:
        return Exclusions()
    try:
        lists = [load_filter(path) for path in paths]
        if inputs is not None:
            _check(lists, inputs, proposer=proposer)
    except OSError as error:
        raise DatasetError(f"--filter: the lists cannot be read and checked: {error}") from error
    return _exclusions(lists)


def _exclusions(lists: Iterable[FilterList]) -> Exclusions:
    images: set[str] = set()
    regions: set[tuple[str, str]] = set()
    for filter_list in lists:
        dropped = filter_list.dropped
        for key, region_id in zip(dropped["key"].to_pylist(), dropped["region_id"].to_pylist(), strict=True):
            if region_id is None:
                images.add(key)
            else:
                regions.add((key, region_id))
    return Exclusions(images=frozenset(images), regions=frozenset(regions))


def _check(lists: Sequence[FilterList], inputs: Sequence[str], *, proposer: str) -> None:
    """Raise DatasetError where it can be told before any work that a row of the lists names nothing in the inputs.

    It can where all inputs are shards of ours: their tables name every image and region. Of other inputs keys are known
    once they are read; regions have ids in all inputs that give any. Raises SourceError for unusable inputs.
    """
    sources = [open_source(spec) for spec in inputs]
    tables = _named_rows(inputs, sources)
    if tables is None:
        named = sum(filter_list.dropped["region_id"].drop_null().length() for filter_list in lists)
        if named and proposer == GIVEN and not any(map(_gives_ids, sources)):
            raise DatasetError(
                f"--filter: the lists name {named} regions, but no INPUT gives its regions ids: shards of "
                "`fineclip annotate`, other tars with records and annotations do. Take these rows out, or give such"
            )
        return
    try:
        check_rows(lists, tables)
    except DatasetError as error:
        prefixes = [f"{prefix}-" for prefix in input_prefixes([canonical(spec) for spec in inputs]) if prefix]
        hint = f" Keys begin with their INPUT's prefix, as in OUTPUT: {', '.join(prefixes)}." if prefixes else ""
        raise DatasetError(f"--filter {error}{hint}") from error


def _gives_ids(source: Source) -> bool:
    """Return whether regions of a source may have ids; a folder's have, where a table gives them."""
    if isinstance(source, ImageFolder):
        return any(boxes.startswith(OBJECTS_OF) for boxes in source.describe().boxes)
    return isinstance(source, WebDataset | Coco | Yolo | Voc | Annotated | Parquet)


def _named_rows(inputs: Sequence[str], sources: Sequence[Source]) -> Iterator[pa.Table] | None:
    """Return the `key` and `region_id` columns of all inputs, keys as OUTPUT has them; None unless all are ours."""
    ours = [source for source in sources if isinstance(source, WebDataset) and source.is_ours()]
    if len(ours) < len(sources):
        return None
    prefixes = input_prefixes([canonical(spec) for spec in inputs])
    return (
        _with_output_keys(table, prefix)
        for source, prefix in zip(ours, prefixes, strict=True)
        for table in source.named_rows()
    )


def _with_output_keys(table: pa.Table, prefix: str) -> pa.Table:
    encoded = pc.dictionary_encode(table["key"].combine_chunks())
    keys = pa.array([with_prefix(as_key(key), prefix) for key in encoded.dictionary.to_pylist()], type=pa.string())
    return pa.table({"key": keys.take(encoded.indices), "region_id": table["region_id"]})
