"""WebDataset tars, img2dataset's output among them: the files of a sample share a name, in any order.

A member's name splits at the first dot of its last path component: `cats/0001.seg.png` is the `seg.png` of the sample
`cats/0001`. Members without a name or a suffix (`README`, `._a.jpg`) belong to no sample; those of them that hold a
picture are rows that say so.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from typing import ClassVar

import msgspec
import pyarrow as pa

from pipeline.read.base import SourceError, SourceFile, SourcePart
from pipeline.read.captions import SIDECAR_SUFFIXES, CaptionReader, notes
from pipeline.read.describe import NUM_LOOKED_AT, Description, unread_fields, unread_members
from pipeline.read.formats import FORMAT_OF_SUFFIX, is_image
from pipeline.read.img2dataset import Sidecar, load_sidecar, planned_samples, sidecar_uri
from pipeline.read.items import SampleError, check_not_empty, failed_item
from pipeline.read.keys import as_key
from pipeline.read.location import Location
from pipeline.read.parquet_files import DamagedParquetError, open_parquet
from pipeline.read.parts import pack_parts
from pipeline.read.phrases import SPANS
from pipeline.read.record import SampleRecord
from pipeline.read.sample_json import decode_sample_json
from pipeline.read.spec import TAR_SUFFIXES, is_data, is_tar, split_options, tar_stem
from pipeline.read.tar_headers import TarEntry
from pipeline.read.tars import OpenTar, open_tar
from pipeline.sample import SourceItem
from schemas.reasons import Reason

_MAX_UNPACKED = 64 * 2**20
"""Bytes of a compressed tar that is unpacked to see what is in it."""
_NOT_LOOKED_AT = "what the samples hold is told once they are read: a tar has to be fetched or unpacked whole"


@dataclass(frozen=True, kw_only=True, slots=True)
class TarRow:
    """What becomes one item: the files of a sample, or what stands for something that makes none."""

    name: str
    """Of the sample: what its files' names begin with. "" where none is known."""
    files: dict[str, TarEntry] = field(default_factory=dict)
    """By suffix, as written."""
    error: SampleError | None = None
    """Why there is no picture to be read; the files tell where it is None."""
    bytes_lost: int = 0
    number: int = 1
    """Of the tar's rows without a name, from 1."""

    def file(self, suffix: str) -> TarEntry | None:
        """Return the file whose suffix is `suffix` in any case; one that a gap has cut is not there."""
        found = (entry for own, entry in self.files.items() if own.lower() == suffix)
        return next((entry for entry in found if entry.problem is not Reason.TRUNCATED), None)

    @property
    def pictures(self) -> list[TarEntry]:
        """The files that are pictures of the sample: their suffix is a picture's."""
        return [entry for suffix, entry in self.files.items() if f".{suffix.lower()}" in FORMAT_OF_SUFFIX]


class WebDataset:
    """Tars: one, a folder of them, a glob or a brace range (`data/{00000..00127}.tar`), plain or compressed."""

    kind: ClassVar[str] = "webdataset"

    def __init__(self, rest: str) -> None:
        path, _ = split_options(rest, known=())
        self._location = Location.of(path)

    def files(self) -> Iterator[SourceFile]:
        """Yield the tars and the Parquet files that img2dataset left beside them."""
        listed = self._location.files()
        tars = self._tars(listed)
        wanted = sorted({sidecar_uri(tar.uri) for tar in tars})
        there = {file.uri: file for file in listed}
        missing = [uri for uri in wanted if uri not in there]
        # a folder was listed whole; beside the tars of a name or a pattern one has to look
        found = [] if self._location.is_folder else self._location.lookup(missing)
        sidecars = [there[uri] for uri in wanted if uri in there] + [file for file in found if file.size]
        yield from sorted([*tars, *sidecars], key=lambda file: file.uri)

    @property
    def root(self) -> str:
        """The folder that uris are relative to."""
        return self._location.root

    def describe(self) -> Description:
        """Say what the first samples of the first tar that has some hold, and what of it is not read.

        A remote tar is fetched whole to look into it, a large compressed one unpacked: these are left for the work.
        """
        empty: list[str] = []
        for tar in self._tars(self._location.files()):
            if not self._location.is_local or (tar.size > _MAX_UNPACKED and not tar.uri.lower().endswith(".tar")):
                return Description(is_quick=False, notes=(_NOT_LOOKED_AT,))
            with suppress(SampleError), open_tar(self._location, tar.uri) as opened:
                if samples := group_samples(opened.entries)[:NUM_LOOKED_AT]:
                    return _with_empty(self._describe(tar.uri, opened, samples), empty)
                if not opened.entries and not opened.gaps:
                    empty.append(tar.uri)
        return _with_empty(Description(), empty)

    def _describe(self, tar_uri: str, tar: OpenTar, samples: Sequence[TarRow]) -> Description:
        records = [record for sample in samples if (record := _record(tar, sample)) is not None]
        suffixes = [suffix.lower() for sample in samples for suffix in sample.files]
        captions = [f".{suffix} members" for suffix in SIDECAR_SUFFIXES if suffix in suffixes]
        captions += [".json members"] if any(record.captions for record in records) else []
        sidecar = load_sidecar(self._location, tar_uri)
        captions += [sidecar_uri(tar_uri)] if any(row.caption for row in sidecar.rows.values()) else []
        return Description(
            captions=tuple(captions),
            boxes=_boxes(records),
            unread=(*unread_members(suffixes, _is_read), *unread_fields(record.unread for record in records)),
        )

    def parts(self, shard_size: int, repack: bool) -> Iterator[tuple[SourcePart, ...]]:
        """Yield one shard a tar; with `repack` walk the tars and cut them into `shard_size` samples."""
        uris = [tar.uri for tar in self._tars(self._location.files())]
        if repack:
            yield from pack_parts(((uri, self._count(uri)) for uri in uris), shard_size)
            return
        for uri in uris:
            yield (SourcePart(uri=uri, stop=planned_samples(self._location, uri)),)

    def read(self, part: SourcePart) -> Iterator[SourceItem]:
        """Yield a tar's samples in the order of their first members, then an item for each that it lost.

        A gap is one item that failed as `truncated`, or one for each sample that img2dataset's Parquet says was there.
        """
        sidecar = load_sidecar(self._location, part.uri)
        with ExitStack() as stack:
            tar: OpenTar | SampleError
            try:
                tar = stack.enter_context(open_tar(self._location, part.uri))
            except SampleError as error:
                tar = error
            rows = _rows(tar, part.uri, sidecar)
            # a tar that was not counted is read whole: it may hold more samples than the sidecar says
            whole = part.stop is None or (part.start, part.stop) == (0, len(sidecar.names))
            for index in range(part.start, len(rows) if whole else min(part.stop or 0, len(rows))):
                yield _read_row(tar, rows[index], index, uri=part.uri, sidecar=sidecar)

    def is_ours(self) -> bool:
        """Say whether these are shards of `fineclip annotate`: the first tar has the table of one beside it."""
        return self._named_rows(self._tars(self._location.files())[0].uri) is not None

    def named_rows(self) -> Iterator[pa.Table]:
        """Yield the `key` and `region_id` columns of each shard's table: all that a filter list can name.

        Raises SourceError, naming the tar, where one has no such table.
        """
        for tar in self._tars(self._location.files()):
            table = self._named_rows(tar.uri)
            if table is None:
                raise SourceError(
                    f"{self._location.url(tar.uri)}: has no table of a shard beside it, as the tars before it have; "
                    "fetch it, or name tars that are no shards as an INPUT of their own"
                )
            yield table

    def _named_rows(self, tar_uri: str) -> pa.Table | None:
        uri = sidecar_uri(tar_uri)
        try:
            with open_parquet(self._location, uri) as parquet:
                ours = {"key", "region_id"} <= set(parquet.schema_arrow.names)
                return parquet.read(columns=["key", "region_id"]) if ours else None
        except FileNotFoundError:
            return None
        except DamagedParquetError as error:
            raise SourceError(f"{self._location.url(uri)}: cannot be read ({error}); restore it") from error

    def _tars(self, listed: Sequence[SourceFile]) -> list[SourceFile]:
        named = self._location.name is not None
        tars = [file for file in listed if named or (is_tar(file.uri) and is_data(file.uri))]
        if not any(tar.size or tar.etag for tar in tars):
            looked_for = ", ".join(TAR_SUFFIXES)
            raise SourceError(f"{self._location}: found no tar ({looked_for}); check the path")
        return tars

    def _count(self, uri: str) -> int:
        """Return how many items a tar yields.

        Raises SourceError where img2dataset's Parquet says fewer: samples could not be told from the sidecar's.
        """
        sidecar = load_sidecar(self._location, uri)
        try:
            with open_tar(self._location, uri) as tar:
                rows = _rows(tar, uri, sidecar)
        except SampleError as error:
            rows = _rows(error, uri, sidecar)
        num_samples = sum(row.error is None for row in rows)
        if sidecar.names and num_samples > len(sidecar.names):
            raise SourceError(
                f"{self._location.url(uri)}: holds {num_samples} samples, but {sidecar_uri(uri)} beside it lists "
                f"{len(sidecar.names)}; take the Parquet file away if it is not the tar's"
            )
        return len(rows)


def _with_empty(description: Description, empty: Sequence[str]) -> Description:
    """Return the description with a note of the tars that hold nothing."""
    more = f" and {len(empty) - 1} more" if len(empty) > 1 else ""
    notes_ = (f"{empty[0]}{more}: a tar without files",) if empty else ()
    return msgspec.structs.replace(description, notes=(*description.notes, *notes_))


def group_samples(entries: Iterable[TarEntry]) -> list[TarRow]:
    """Return the samples in the order of their first members.

    A suffix that a sample has already begins another sample of the same name.
    """
    samples: list[TarRow] = []
    latest: dict[str, TarRow] = {}
    for entry in entries:
        name, suffix = _split(entry.name)
        if not suffix:
            continue
        if name not in latest or suffix in latest[name].files:
            latest[name] = TarRow(name=name)
            samples.append(latest[name])
        latest[name].files[suffix] = entry
    return samples


def _split(name: str) -> tuple[str, str]:
    """Return what a member's sample is called, and the member's suffix; two times "" where it is of no sample."""
    folder, slash, base = name.rpartition("/")
    stem, _, suffix = base.partition(".")
    return (f"{folder}{slash}{stem}", suffix) if stem and suffix else ("", "")


def _without_sample(tar: OpenTar, samples: Sequence[TarRow]) -> Iterator[TarRow]:
    """Yield a row for each picture whose name makes it part of no sample."""
    taken = {sample.name for sample in samples}
    for entry in tar.entries:
        if not _split(entry.name)[1] and tar.looks_like_picture(entry):
            message = f"{entry.name}: a picture whose name has nothing before or behind its first dot: rename it"
            name = entry.name
            while name in taken:
                name += "."
            taken.add(name)
            yield TarRow(name=name, error=SampleError(Reason.NO_IMAGE, message))


def _rows(tar: OpenTar | SampleError, uri: str, sidecar: Sidecar) -> list[TarRow]:
    """Return what a tar yields: its samples, then what it lost. Each picture has a row, whatever its name."""
    if isinstance(tar, SampleError):
        return [TarRow(name=name, error=tar) for name in sidecar.names or ("",)]
    samples = group_samples(tar.entries)
    if tar.gaps:
        samples = [sample for sample in samples if not _is_lost(sample)]
    rows = [row for sample in samples for row in _told_apart(sample)]
    rows += _without_sample(tar, samples)
    losses = _losses(tar, uri, sidecar, missing=sidecar.missing(sample.name for sample in samples))
    number = 0
    for row in losses:
        number += not row.name
        rows.append(row if row.name else replace(row, number=number))
    return rows


def _is_lost(sample: TarRow) -> bool:
    """Say whether a gap has taken the picture: the sample belongs to the row for the gap."""
    pictures = sample.pictures or [entry for entry in sample.files.values() if is_image(entry.name)]
    if not pictures:
        return any(entry.beside_gap for entry in sample.files.values())
    return all(entry.problem is Reason.TRUNCATED for entry in pictures)


def _losses(tar: OpenTar, uri: str, sidecar: Sidecar, *, missing: Sequence[str]) -> Iterator[TarRow]:
    """Yield a row for each sample that is `missing`, in place of those for the gaps that they were lost in."""
    unit = "bytes" if tar.scale == 1 else "decompressed bytes"
    gaps = {gap: f"{unit} {gap.start:,} to {gap.stop:,}: {gap.problem}" for gap in tar.gaps}
    if missing:
        lost = [gap for gap in tar.gaps if gap.reason is Reason.TRUNCATED]
        what = f"{len(missing)} of {len(sidecar.names)} samples that {sidecar_uri(uri)} lists are missing"
        error = SampleError(Reason.TRUNCATED, "; ".join([f"{uri}: {what}", *(gaps.pop(gap) for gap in lost)]))
        bytes_lost = round(sum(gap.num_lost for gap in lost) * tar.scale)
        for index, name in enumerate(missing):
            yield TarRow(name=name, error=error, bytes_lost=0 if index else bytes_lost)
    for gap, text in gaps.items():
        error = SampleError(gap.reason, f"{uri}: {text}")
        yield TarRow(name="", error=error, bytes_lost=round(gap.num_lost * tar.scale))


def _told_apart(sample: TarRow) -> Iterator[TarRow]:
    """Yield the sample, or a row for each of its pictures where their names do not tell which is the sample's.

    Pictures beside the sample's own that are called by a word (`0001.mask.png`) are what goes with it; where they are
    numbered, somebody may have taken them for samples.
    """
    images = [suffix for suffix, entry in sample.files.items() if is_image(entry.name)]
    if len(images) < 2:
        yield sample
        return
    own = sample.pictures
    others = [sample.files[suffix] for suffix in images if "." in suffix]
    rule = "the first dot of a name ends the key and begins the suffix"
    if len(own) == 1:
        yield sample
        for entry in others:
            if any(character.isdigit() for character in entry.name.rpartition("/")[2].partition(".")[2]):
                message = f"{entry.name}: goes with {own[0].name}, since {rule}; rename it if it is a sample of its own"
                yield TarRow(name=entry.name, error=SampleError(Reason.COMPANION, message))
        return
    for entry in (*own, *others):
        message = f"{entry.name}: one of {len(own) + len(others)} pictures with the key {sample.name}: {rule}; rename"
        yield TarRow(name=entry.name, error=SampleError(Reason.SHARED_KEY, f"{message} them, with _ for the dot"))


def _read_row(tar: OpenTar | SampleError, row: TarRow, index: int, *, uri: str, sidecar: Sidecar) -> SourceItem:
    file_uri = f"{uri}/{row.name}" if row.name else uri
    try:
        if isinstance(tar, SampleError):
            raise tar
        if row.error is not None:
            raise row.error
        if not row.pictures:
            names = ", ".join(entry.name for entry in row.files.values())
            raise SampleError(
                Reason.NO_IMAGE, f"{row.name}: no image among {names} (the first dot of a name begins the suffix)"
            )
        file_uri = f"{uri}/{row.pictures[0].name}"
        data = tar.read(row.pictures[0])
        check_not_empty(len(data), row.pictures[0].name)
        captions = CaptionReader()
        for entry in row.files.values():
            if entry.problem is Reason.TRUNCATED:
                captions.note(f"{entry.name}: lost where the tar is damaged")
        for suffix in SIDECAR_SUFFIXES:
            if (text := row.file(suffix)) is not None:
                captions.add_file(tar.read(text), text.name)
        record = row.file("json")
        annotation = SampleRecord() if record is None else decode_sample_json(tar.read(record), record.name)
        listed = sidecar.row(row.name)
        captions.add([*annotation.captions, listed.caption], file_uri)
        found = captions.captions()
    except SampleError as error:
        number = f"-{row.number}" if row.number > 1 else ""
        key = as_key(row.name or f"{tar_stem(uri)}-{error.reason}{number}")
        return failed_item(key, index, file_uri, error, row.bytes_lost)
    return SourceItem(
        key=as_key(row.name),
        index=index,
        uri=file_uri,
        data=data,
        captions=found,
        url=annotation.url or listed.url,
        license=annotation.license or listed.license,
        note=notes(captions.note_text, annotation.note),
        given=annotation.given,
        given_size=annotation.given_size,
        given_in_shares=annotation.in_shares,
    )


def _boxes(records: Sequence[SampleRecord]) -> tuple[str, ...]:
    if any(record.in_shares for record in records):
        return (f"{' and '.join(f'`{name}`' for name in SPANS)} of .json members",)
    return ("`regions` of .json members",) if any(record.has_regions for record in records) else ()


def _record(tar: OpenTar, sample: TarRow) -> SampleRecord | None:
    member = sample.file("json")
    with suppress(SampleError):
        return None if member is None else decode_sample_json(tar.read(member), member.name)
    return None


def _is_read(suffix: str) -> bool:
    return suffix in (*SIDECAR_SUFFIXES, "json") or f".{suffix}" in FORMAT_OF_SUFFIX
