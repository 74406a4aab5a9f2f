"""A folder of images, at any depth, with captions in `.txt` files beside them or in one table."""

from collections.abc import Iterator
from typing import ClassVar

from pipeline.read.base import ListedItem, SourceError, SourceFile, SourcePart
from pipeline.read.captions import match_captions, read_captions
from pipeline.read.formats import IMAGE_SUFFIXES, is_image
from pipeline.read.items import SampleError, decode_caption, read_file, tidy_caption
from pipeline.read.keys import keys_of_files, without_extension
from pipeline.read.listed import read_listed
from pipeline.read.location import Location
from pipeline.read.parts import list_parts
from pipeline.read.spec import split_options
from pipeline.sample import SourceItem
from schemas.reasons import Reason


class ImageFolder:
    """Images of a folder, of a glob, or a single one: `photos`, `photos/*.jpg`, `photos?captions=captions.csv`.

    With `captions=` the table alone gives captions; images it does not name have none, and images that only it names
    are missing.
    """

    kind: ClassVar[str] = "folder"

    def __init__(self, rest: str) -> None:
        path, options = split_options(rest, known=("captions",))
        self._location = Location.of(path)
        self._captions = self._location.related(options["captions"]) if "captions" in options else None

    def files(self) -> Iterator[SourceFile]:
        """Yield the images, the `.txt` files beside them, and the table of captions under its full path."""
        listed = self._location.files()
        images = self._images(listed)
        stems = {without_extension(file.uri) for file in images}
        texts = [file for file in listed if file.uri.endswith(".txt") and without_extension(file.uri) in stems]
        if self._captions is None:
            yield from sorted([*images, *texts], key=lambda file: file.uri)
            return
        missing = sorted(self._table(images).keys() - {file.uri for file in images})
        absent = [SourceFile(uri=uri, size=0, etag="") for uri in missing]
        tables = [SourceFile(uri=str(self._captions), size=f.size, etag=f.etag) for f in self._captions.files()]
        yield from sorted([*images, *absent, *tables], key=lambda file: file.uri)

    def parts(self, shard_size: int, repack: bool) -> Iterator[tuple[SourcePart, ...]]:
        """Yield the images in the order of their paths, `shard_size` a shard."""
        images = self._images(self._location.files())
        table = self._table(images) if self._captions is not None else {}
        uris = sorted({*(file.uri for file in images), *table})
        items = [
            ListedItem(key=key, uri=uri, caption=tidy_caption(table.get(uri, "")))
            for key, uri in zip(keys_of_files(uris), uris, strict=True)
        ]
        yield from list_parts(items, shard_size)

    def read(self, part: SourcePart) -> Iterator[SourceItem]:
        """Yield the part's images with their captions."""
        yield from read_listed(part, self._location, self._caption_of)

    def _images(self, listed: list[SourceFile]) -> list[SourceFile]:
        images = [file for file in listed if is_image(file.uri)]
        if not images:
            raise SourceError(f"{self._location}: found no image ({', '.join(IMAGE_SUFFIXES)}); check the path")
        return images

    def _table(self, images: list[SourceFile]) -> dict[str, str]:
        assert self._captions is not None
        return match_captions(read_captions(self._captions), (file.uri for file in images), str(self._captions))

    def _caption_of(self, listed: ListedItem) -> str | None:
        if self._captions is not None:
            return listed.caption
        uri = f"{without_extension(listed.uri)}.txt"
        try:
            return decode_caption(read_file(self._location, uri), uri)
        except SampleError as error:
            if error.reason is Reason.MISSING and isinstance(error.__cause__, FileNotFoundError):
                return None
            raise
