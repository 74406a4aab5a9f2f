"""A folder of images, at any depth, with captions in files beside them or in tables.

Captions are read where the habits of the trade put them: in `.txt`, `.caption` and `.cap` files under the image's name
(`cat.txt` or `cat.jpg.txt`, in any case), then in Hugging Face's `metadata.jsonl`, `.csv` or `.parquet`, which names
files relative to its own folder. With `captions=TABLE` that table alone gives captions. A `.json` under the image's
name is read as the `.json` member of a tar is.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import ClassVar

import msgspec

from pipeline.read.base import ListedItem, SourceError, SourceFile, SourcePart
from pipeline.read.caption_tables import Matched, NoCaptionsError, Row, check_matched, match_rows, read_table
from pipeline.read.captions import SIDECAR_SUFFIXES, CaptionReader
from pipeline.read.describe import NUM_LOOKED_AT, Description, unread_fields, unread_files
from pipeline.read.formats import IMAGE_SUFFIXES, is_image, suffix_of
from pipeline.read.items import SampleError, read_file
from pipeline.read.keys import as_key, in_one_form, keys_of_files, without_extension
from pipeline.read.listed import read_listed
from pipeline.read.location import Location
from pipeline.read.names import Names, check_allowed
from pipeline.read.objects import read_objects
from pipeline.read.parts import list_parts
from pipeline.read.recognise import recognise
from pipeline.read.record import SampleRecord
from pipeline.read.sample_json import decode_sample_json
from pipeline.read.spec import split_options
from pipeline.sample import GivenRegion, SourceItem
from schemas.reasons import Reason
from schemas.text import counted

OBJECTS_OF = "`objects` of"
"""How the boxes of a table are described: each has an id."""
_METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")


@dataclass(kw_only=True)
class _Tables:
    """What the folder's tables say of its images."""

    readers: dict[str, CaptionReader] = field(default_factory=dict)
    """By uri of the image."""
    regions: dict[str, tuple[GivenRegion, ...]] = field(default_factory=dict)
    """By uri of the image."""
    lost: list[tuple[str, str, str]] = field(default_factory=list)
    """(table, row, problem) of rows that name no image."""
    read: list[str] = field(default_factory=list)
    unread: list[tuple[str, str]] = field(default_factory=list)
    """(table, why) of tables by Hugging Face's names that hold something else."""

    def add(self, matched: Matched, name: str) -> None:
        """Take what a table says; of an image that an earlier one names too, captions are added, regions are not."""
        for uri, reader in matched.readers.items():
            if self.readers.setdefault(uri, reader) is not reader:
                self.readers[uri].join(reader)
        for uri, objects in matched.objects.items():
            found = [region for where, value in objects for region in read_objects(value, where)]
            if len(objects) > 1 and len({region.id for region in found}) < len(found):  # places, of several rows
                found = [msgspec.structs.replace(region, id=str(place)) for place, region in enumerate(found)]
            if found and self.regions.setdefault(uri, tuple(found)) != tuple(found):
                self.readers[uri].note(f"{name}: {counted(len(found), 'region')} not read, another table has some")
        self.read.append(name)
        self.lost += [(name, row.where, f"{name}: {row.problem}") for row in matched.lost]


class ImageFolder:
    """Images of a folder, of a glob, or a single one: `photos`, `photos/*.jpg`, `photos?captions=captions.csv`.

    Images that only a table names are missing.
    """

    kind: ClassVar[str] = "folder"

    def __init__(self, rest: str, *, allow: Sequence[str] = ()) -> None:
        path, options = split_options(rest, known=("captions",))
        self._location = Location.of(path).allowing(allow)
        self._names = Names(self._location)
        self._captions = self._location.related(options["captions"]) if "captions" in options else None

    def files(self) -> Iterator[SourceFile]:
        """Yield the images, the files that may hold their captions, and the table given under its full path."""
        listed = self._location.files()
        images = self._images(listed)
        uris = {file.uri for file in images}
        named = self._tables(listed, uris).readers.keys()
        absent = [SourceFile(uri=uri, size=0, etag="") for uri in named - uris]
        if self._captions is not None:
            beside = [SourceFile(uri=str(self._captions), size=f.size, etag=f.etag) for f in self._captions.files()]
        else:
            wanted = {uri for texts in self._sidecars(listed, uris).values() for uri in texts}
            beside = [file for file in listed if file.uri in wanted or _is_metadata(file.uri)]
        records = set(_records([file.uri for file in listed], uris).values())
        beside += [file for file in listed if file.uri in records]
        yield from sorted([*images, *absent, *beside], key=lambda file: file.uri)

    @property
    def root(self) -> str:
        """The folder that uris are relative to."""
        return self._location.root

    def describe(self) -> Description:
        """Count the pictures, captions and records beside them, and name the other kinds of file."""
        listed = self._location.files()
        images = {file.uri for file in listed if is_image(file.uri)}
        read = {file.uri for file in self.files()}
        texts = {uri for found in self._sidecars(listed, images).values() for uri in found} & read
        captions = [f"{counted(len(texts), 'file')} of text beside the images"] if texts else []
        tables = self._tables(listed, images)
        read -= {uri for uri, _ in tables.unread}
        captions += [str(self._captions)] if self._captions is not None else sorted(tables.read)
        records = list(_records(read, images).values())
        first = list(self._first(records))
        gives_boxes = any(record.has_regions for record in first)
        boxes = [f"`regions` of {len(records):,} .json files beside the images"] if gives_boxes else []
        boxes += [f"{OBJECTS_OF} {' and '.join(tables.read)}"] if tables.regions else []
        recognised = recognise(self._location, {file.uri for file in listed}) if self._location.is_folder else ()
        rest = (file.uri for file in listed if file.uri not in read and self._location.url(file.uri) not in read)
        return Description(
            images=dict(sorted(Counter(map(suffix_of, images)).items())),
            num_images=len(images),
            captions=tuple(captions),
            boxes=tuple(boxes),
            unread=(*unread_files(rest), *unread_fields(record.unread for record in first)),
            notes=(*(why for _, why in tables.unread), *recognised),
        )

    def _first(self, records: Iterable[str]) -> Iterator[SampleRecord]:
        """Yield what the first of the `.json` files say."""
        for uri in sorted(records)[:NUM_LOOKED_AT]:
            with suppress(SampleError):
                yield decode_sample_json(read_file(self._location, uri), uri)

    def parts(self, shard_size: int, repack: bool) -> Iterator[tuple[SourcePart, ...]]:
        """Yield the images in the order of their paths, `shard_size` a shard; then tables' rows that name none."""
        listed = self._location.files()
        there = {file.uri for file in self._images(listed)}
        tables = self._tables(listed, there)
        texts = self._sidecars(listed, there) if self._captions is None else {}
        looks = self._captions is None and not self._location.is_folder
        uris = sorted(there | tables.readers.keys())
        records = _records([file.uri for file in listed], uris)
        items = []
        for key, uri in zip(keys_of_files(uris), uris, strict=True):
            beside = None if looks else tuple(texts.get(uri, ()))
            item = _listed(key, uri, beside, tables.readers.get(uri))
            record, regions = records.get(without_extension(uri)), tables.regions.get(uri, ())
            items.append(msgspec.structs.replace(item, record=record, regions=regions))
        for name, row, problem in tables.lost:
            error = SampleError(Reason.BAD_RECORD, problem)
            table = str(self._captions) if self._captions is not None else name  # as `files` has it
            items.append(ListedItem(key=as_key(f"{name} {row}"), uri=table, drop=error.drop))
        yield from list_parts(items, shard_size)

    def read(self, part: SourcePart) -> Iterator[SourceItem]:
        """Yield the part's images with their captions."""
        yield from read_listed(part, self._location, self._add_sidecars)

    def _images(self, listed: list[SourceFile]) -> list[SourceFile]:
        images = [file for file in listed if is_image(file.uri)]
        if not images:
            raise SourceError(f"{self._location}: found no image ({', '.join(IMAGE_SUFFIXES)}); check the path")
        return images

    def _tables(self, listed: Sequence[SourceFile], uris: set[str]) -> _Tables:
        """Return what the given table says, else what Hugging Face's do.

        One of those that names no image or holds no captions is something else, and not read.
        """
        tables = _Tables()
        if self._captions is not None:
            rows = self._resolved(read_table(self._captions, uris), uris)
            check_allowed({row.file for row in rows if row.file}, self._location, str(self._captions))
            matched = match_rows(rows, uris, str(self._captions.name), root=self._location.root)
            check_matched(rows, matched, uris, str(self._captions))
            tables.add(matched, str(self._captions.name))
            return tables
        for uri in (file.uri for file in listed if _is_metadata(file.uri)):
            folder = uri.rpartition("/")[0]
            try:
                rows = self._resolved(read_table(Location(root=self._location.root, name=uri), uris), uris, folder)
            except NoCaptionsError as error:
                tables.unread.append((uri, f"{error}, and is not read"))
                continue
            except SourceError as error:
                raise SourceError(
                    f"{error}; mend it, take it away, or name the table to read: ?captions=FILE"
                ) from error
            matched = match_rows(rows, uris, uri, folder, self._location.root)
            if uris & matched.readers.keys():
                tables.add(matched, uri)
            else:
                tables.unread.append((uri, f"{self._location.url(uri)}: names no image of the folder; it is not read"))
        return tables

    def _resolved(self, rows: Iterable[Row], uris: set[str], folder: str = "") -> list[Row]:
        """Return the rows with the uris of the files that they name, relative to `folder` where they are relative.

        Blanks around a name are the table's, unless a file has them.
        """
        found = []
        for row in rows:
            uri = None if row.file is None else self._names.uri(row.file, folder)
            if row.file is not None and uri not in uris and row.file != row.file.strip():
                uri = self._names.uri(row.file.strip(), folder)
            found.append(replace(row, file=uri))
        return found

    def _sidecars(self, listed: Sequence[SourceFile], images: set[str]) -> dict[str, list[str]]:
        """Return the text files of each image, by uri, in the order in which they count."""
        texts = [file for file in listed if file.uri.rpartition(".")[2].lower() in SIDECAR_SUFFIXES]
        by_stem: dict[str, list[str]] = {}
        by_form: dict[str, list[str]] = {}
        for uri in sorted(images) if texts else ():
            by_stem.setdefault(without_extension(uri), []).append(uri)
            for name in (without_extension(uri), uri):
                by_form.setdefault(in_one_form(name), []).append(uri)
        found: dict[str, list[tuple[int, str]]] = {}
        for file in texts:
            suffix = file.uri.rpartition(".")[2].lower()
            stem = without_extension(file.uri)
            as_written = by_stem.get(stem, [stem] if stem in images else [])
            for uri in as_written or by_form.get(in_one_form(stem), []):
                found.setdefault(uri, []).append((SIDECAR_SUFFIXES.index(suffix), file.uri))
        return {uri: [text for _, text in sorted(beside)] for uri, beside in found.items()}

    def _add_sidecars(self, listed: ListedItem, reader: CaptionReader) -> None:
        stem = without_extension(listed.uri)
        looked_for = [f"{stem}.{suffix}" for suffix in SIDECAR_SUFFIXES]
        for uri in looked_for if listed.texts is None else listed.texts:
            try:
                reader.add_file(read_file(self._location, uri), uri)
            except SampleError as error:
                absent = error.reason is Reason.MISSING and isinstance(error.__cause__, FileNotFoundError)
                if listed.texts is not None or not absent:
                    raise


def _records(uris: Iterable[str], images: Iterable[str]) -> dict[str, str]:
    """Return the `.json` file of each path of an image without its suffix, as written, else in another Unicode form."""
    stems = set(map(without_extension, images))
    found = {without_extension(uri): uri for uri in uris if uri.endswith(".json")}
    by_form = {in_one_form(stem): uri for stem, uri in found.items() if stem not in stems}
    records = ((stem, found.get(stem, by_form.get(in_one_form(stem)))) for stem in stems)
    return {stem: uri for stem, uri in records if uri is not None}


def _is_metadata(uri: str) -> bool:
    return uri.rpartition("/")[2].lower() in _METADATA


def _listed(key: str, uri: str, texts: tuple[str, ...] | None, reader: CaptionReader | None) -> ListedItem:
    """Return the item of an image; captions of a table that cannot be read end it, unless files may hold others."""
    if reader is None:
        return ListedItem(key=key, uri=uri, texts=texts)
    try:
        captions = reader.captions()
    except SampleError as error:
        if texts == ():
            return ListedItem(key=key, uri=uri, drop=error.drop)
        captions = ()
    return ListedItem(key=key, uri=uri, texts=texts, captions=captions, note=reader.note_text)
