"""WebDataset tars, img2dataset's output among them: the files of a sample share a name, in any order.

A member's name splits at the first dot of its last path component: `cats/0001.seg.png` is the `seg.png` of the sample
`cats/0001`. Members without a name or a suffix (`README`, `._a.jpg`) belong to no sample.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import BinaryIO, ClassVar

import pyarrow as pa

from pipeline.read.base import SourceError, SourceFile, SourcePart
from pipeline.read.formats import IMAGE_SUFFIXES
from pipeline.read.img2dataset import Sidecar, load_sidecar, planned_samples, sidecar_uri
from pipeline.read.items import (
    SampleError,
    check_not_empty,
    decode_caption,
    failed_item,
    failed_unit,
    read_range,
    tidy_caption,
)
from pipeline.read.keys import as_key
from pipeline.read.location import Location
from pipeline.read.parquet_files import DamagedParquetError, open_parquet
from pipeline.read.parts import pack_parts
from pipeline.read.sample_json import SampleJson, decode_sample_json
from pipeline.read.spec import TAR_SUFFIXES, is_data, is_tar, split_options, tar_stem
from pipeline.read.tars import Member, OpenTar, open_tar
from pipeline.sample import SourceItem
from schemas.reasons import Reason

_CAPTION_SUFFIXES = ("txt", "caption")


@dataclass(frozen=True, kw_only=True, slots=True)
class TarSample:
    """The members of one sample."""

    name: str
    members: dict[str, Member] = field(default_factory=dict)
    """By suffix, as written."""

    @property
    def is_cut(self) -> bool:
        """True where the tar ends inside a member: the sample belongs to the one row for the cut."""
        return any(member.problem is Reason.TRUNCATED for member in self.members.values())

    def member(self, suffix: str) -> Member | None:
        """Return the member whose suffix is `suffix` in any case."""
        return next((member for own, member in self.members.items() if own.lower() == suffix), None)


class WebDataset:
    """Tars: one, a folder of them, a glob or a brace range (`data/{00000..00127}.tar`), plain or with gzip."""

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

    def parts(self, shard_size: int, repack: bool) -> Iterator[tuple[SourcePart, ...]]:
        """Yield one shard a tar; with `repack` walk the tars and cut them into `shard_size` samples."""
        uris = [tar.uri for tar in self._tars(self._location.files())]
        if repack:
            yield from pack_parts(((uri, self._count(uri)) for uri in uris), shard_size)
            return
        for uri in uris:
            yield (SourcePart(uri=uri, stop=planned_samples(self._location, uri)),)

    def read(self, part: SourcePart) -> Iterator[SourceItem]:
        """Yield a tar's samples in the order of their first members.

        A cut tar yields what is whole, then one item that failed as `truncated`; so does one with fewer samples than
        img2dataset's Parquet says. Samples that the tar holds beyond that number are yielded.
        """
        with ExitStack() as stack:
            try:
                tar = stack.enter_context(open_tar(self._location, part.uri))
            except SampleError as error:
                yield failed_unit(part.uri, tar_stem(part.uri), 0, error)
                return
            sidecar = load_sidecar(self._location, part.uri)
            samples = [sample for sample in group_samples(tar.members) if not sample.is_cut]
            whole = (
                part.stop is None or part.stop >= len(samples) or (part.start, part.stop) == (0, sidecar.num_planned)
            )
            stop = len(samples) if whole or part.stop is None else part.stop
            for index in range(part.start, stop):
                yield _read_sample(tar.file, samples[index], index, uri=part.uri, sidecar=sidecar)
            problem = _loss(tar, samples, sidecar) if whole else None
            if problem is not None:
                cut = SampleError(Reason.TRUNCATED, f"{part.uri}: {problem}")
                yield failed_unit(part.uri, tar_stem(part.uri), len(samples), cut)

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
        """Return the number of samples in a tar, 1 where it can yield only a failed item.

        Raises SourceError where img2dataset's Parquet says fewer: samples could not be told from the sidecar's.
        """
        try:
            with open_tar(self._location, uri) as tar:
                count = sum(not sample.is_cut for sample in group_samples(tar.members))
        except SampleError:
            return 1
        planned = planned_samples(self._location, uri)
        if planned is not None and count > planned:
            raise SourceError(
                f"{self._location.url(uri)}: holds {count} samples, but {sidecar_uri(uri)} beside it lists {planned}; "
                "take the Parquet file away if it is not the tar's"
            )
        return count or int(bool(tar.problem or planned))


def group_samples(members: Sequence[Member]) -> list[TarSample]:
    """Return the samples in the order of their first members.

    A suffix that a sample has already begins another sample of the same name.
    """
    samples: list[TarSample] = []
    latest: dict[str, TarSample] = {}
    for member in members:
        folder, slash, base = member.name.rpartition("/")
        stem, _, suffix = base.partition(".")
        if not stem or not suffix:
            continue
        name = f"{folder}{slash}{stem}"
        if name not in latest or suffix in latest[name].members:
            latest[name] = TarSample(name=name)
            samples.append(latest[name])
        latest[name].members[suffix] = member
    return samples


def _loss(tar: OpenTar, samples: Sequence[TarSample], sidecar: Sidecar) -> str | None:
    """Say what the tar lacks as a whole, or None."""
    problems = [tar.problem] if tar.problem else []
    cut = [member.name for member in tar.members if member.problem is Reason.TRUNCATED]
    problems += [f"it ends inside {name}" for name in cut]
    if sidecar.num_planned is not None and len(samples) < sidecar.num_planned:
        problems.append(f"{sidecar.num_planned - len(samples)} of {sidecar.num_planned} samples are missing")
    return "; ".join([*problems, f"{len(samples)} samples were found"]) if problems else None


def _read_sample(file: BinaryIO, sample: TarSample, index: int, *, uri: str, sidecar: Sidecar) -> SourceItem:
    key, member_uri = as_key(sample.name), f"{uri}/{sample.name}"
    try:
        image = _image_member(sample)
        member_uri = f"{uri}/{image.name}"
        data = _read_member(file, image)
        check_not_empty(len(data), image.name)
        caption = _caption(file, sample)
        annotation = _annotation(file, sample)
    except SampleError as error:
        return failed_item(key, index, member_uri, error)
    row = sidecar.row(sample.name)
    license_ = annotation.origin.license or row.license
    return SourceItem(
        key=key,
        index=index,
        uri=member_uri,
        data=data,
        caption=caption or _json_caption(annotation) or row.caption,
        url=annotation.origin.url or row.url,
        license=None if license_ is None else str(license_),
        given=annotation.given,
        given_size=annotation.given_size,
    )


def _image_member(sample: TarSample) -> Member:
    images = [member for suffix, member in sample.members.items() if f".{suffix.lower()}" in IMAGE_SUFFIXES]
    if len(images) > 1:
        names = ", ".join(member.name for member in images)
        raise SampleError(Reason.BAD_RECORD, f"{sample.name}: {len(images)} image members: {names}")
    if not images:
        names = ", ".join(member.name for member in sample.members.values())
        raise SampleError(
            Reason.NO_IMAGE, f"{sample.name}: no image among {names} (the first dot of a name begins the suffix)"
        )
    return images[0]


def _read_member(file: BinaryIO, member: Member) -> bytes:
    if member.problem is not None:
        raise SampleError(member.problem, f"{member.name}: links to nothing in the tar")
    return read_range(file, member.offset, member.size, name=member.name)


def _caption(file: BinaryIO, sample: TarSample) -> str | None:
    for suffix in _CAPTION_SUFFIXES:
        member = sample.member(suffix)
        if member is not None:
            return decode_caption(_read_member(file, member), member.name)
    return None


def _annotation(file: BinaryIO, sample: TarSample) -> SampleJson:
    member = sample.member("json")
    return SampleJson() if member is None else decode_sample_json(_read_member(file, member), member.name)


def _json_caption(annotation: SampleJson) -> str | None:
    return tidy_caption(annotation.caption or annotation.image_caption or "")
