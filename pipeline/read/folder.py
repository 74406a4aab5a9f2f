"""A folder of images, at any depth, with captions in files beside them or in tables.

Captions are read where the habits of the trade put them: in `.txt`, `.caption` and `.cap` files under the image's name
(`cat.txt` or `cat.jpg.txt`, in any case), then in Hugging Face's `metadata.jsonl`, `.csv` or `.parquet`, which names
files relative to its own folder. With `captions=TABLE` that table alone gives captions.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from pipeline.read.base import ListedItem, SourceError, SourceFile, SourcePart
from pipeline.read.caption_tables import Matched, NoCaptionsError, check_matched, match_rows, read_table
from pipeline.read.captions import SIDECAR_SUFFIXES, CaptionReader
from pipeline.read.formats import IMAGE_SUFFIXES, is_image
from pipeline.read.items import SampleError, read_file
from pipeline.read.keys import as_key, keys_of_files, without_extension
from pipeline.read.listed import read_listed
from pipeline.read.location import Location
from pipeline.read.parts import list_parts
from pipeline.read.spec import split_options
from pipeline.sample import SourceItem
from schemas.reasons import Reason

_METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")


@dataclass(kw_only=True)
class _Tables:
    """What the folder's tables say of its images."""

    readers: dict[str, CaptionReader] = field(default_factory=dict)
    """By uri of the image."""
    lost: list[tuple[str, str, str]] = field(default_factory=list)
    """(table, row, problem) of rows that name no image."""

    def add(self, matched: Matched, name: str) -> None:
        for uri, reader in matched.readers.items():
            self.readers.setdefault(uri, reader)
        self.lost += [(name, row.where, f"{name}: {row.problem}") for row in matched.lost]


class ImageFolder:
    """Images of a folder, of a glob, or a single one: `photos`, `photos/*.jpg`, `photos?captions=captions.csv`.

    Images that only a table names are missing.
    """

    kind: ClassVar[str] = "folder"

    def __init__(self, rest: str) -> None:
        path, options = split_options(rest, known=("captions",))
        self._location = Location.of(path)
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
        yield from sorted([*images, *absent, *beside], key=lambda file: file.uri)

    def parts(self, shard_size: int, repack: bool) -> Iterator[tuple[SourcePart, ...]]:
        """Yield the images in the order of their paths, `shard_size` a shard; then tables' rows that name none."""
        listed = self._location.files()
        there = {file.uri for file in self._images(listed)}
        tables = self._tables(listed, there)
        texts = self._sidecars(listed, there) if self._captions is None else {}
        looks = self._captions is None and not self._location.is_folder
        uris = sorted(there | tables.readers.keys())
        items = []
        for key, uri in zip(keys_of_files(uris), uris, strict=True):
            beside = None if looks else tuple(texts.get(uri, ()))
            items.append(_listed(key, uri, beside, tables.readers.get(uri)))
        for name, row, problem in tables.lost:
            error = SampleError(Reason.BAD_RECORD, problem)
            items.append(ListedItem(key=as_key(f"{name} {row}"), uri=name, drop=error.drop))
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
            rows = read_table(self._captions, uris)
            matched = match_rows(rows, uris, str(self._captions.name))
            check_matched(rows, matched, uris, str(self._captions))
            tables.add(matched, str(self._captions.name))
            return tables
        for uri in (file.uri for file in listed if _is_metadata(file.uri)):
            folder = uri.rpartition("/")[0]
            try:
                rows = read_table(Location(root=self._location.root, name=uri), uris)
            except NoCaptionsError:
                continue
            matched = match_rows(rows, uris, uri, folder)
            if uris & matched.readers.keys():
                tables.add(matched, uri)
        return tables

    def _sidecars(self, listed: Sequence[SourceFile], images: set[str]) -> dict[str, list[str]]:
        """Return the text files of each image, by uri, in the order in which they count."""
        texts = [file for file in listed if file.uri.rpartition(".")[2].lower() in SIDECAR_SUFFIXES]
        by_stem: dict[str, list[str]] = {}
        for uri in images if texts else ():
            by_stem.setdefault(without_extension(uri), []).append(uri)
        found: dict[str, list[tuple[int, str]]] = {}
        for file in texts:
            suffix = file.uri.rpartition(".")[2].lower()
            stem = without_extension(file.uri)
            for uri in by_stem.get(stem, [stem] if stem in images else []):
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
