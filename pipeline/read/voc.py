"""Pascal VOC: a folder of pictures and of XML files, one a picture (`voc_xml`).

    FOLDER/Annotations/x.xml with JPEGImages/x.jpg     and ImageSets/Main/train.txt for ?set=train
    x.xml beside x.jpg                                 as Roboflow and LabelImg write it

A picture is an XML file's by its name: in the same folder, in `JPEGImages` or `images` for `Annotations`, else the only
one of this name; else by <filename>. A picture without an XML file has no objects; one that only an XML file names is
missing.
"""

import posixpath
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import ClassVar

from pipeline.read.base import ListedItem, SourceError, SourceFile, SourcePart
from pipeline.read.describe import Description, unread_files
from pipeline.read.formats import is_image, suffix_of
from pipeline.read.items import SampleError, read_file
from pipeline.read.keys import as_key, in_one_form, keys_of_files, without_extension
from pipeline.read.listed import read_listed
from pipeline.read.location import Location
from pipeline.read.parts import list_parts
from pipeline.read.record import SampleRecord
from pipeline.read.spec import split_options
from pipeline.read.voc_xml import parse_xml, read_voc
from pipeline.sample import SourceItem
from schemas.reasons import Reason
from schemas.text import lines_of

_ANNOTATIONS = re.compile(r"(^|/)annotations(?=/)", re.IGNORECASE)
_SET_LINE = re.compile(r"""\s*("?)(.+?)\1(?:\s+-?[01])?\s*""")
"""A name, and whether it is one of the class that the set is of."""
_MASKS = re.compile(r"(^|/)Segmentation(Class|Object)(Raw)?/")
"""Folders of pictures of masks."""


class _Layout:
    """Which XML file is of which picture."""

    def __init__(self, listed: Sequence[SourceFile]) -> None:
        self.files = {file.uri: file for file in listed}
        self.images = sorted(uri for uri in self.files if is_image(uri) and not _MASKS.search(uri))
        self.xmls = sorted(uri for uri in self.files if suffix_of(uri) == ".xml")
        self._as_written: dict[str, list[str]] = {}
        self._by_path: dict[str, list[str]] = {}
        self._by_name: dict[str, list[str]] = {}
        for uri in self.images:
            path = without_extension(uri)
            self._as_written.setdefault(path, []).append(uri)
            self._by_path.setdefault(_plain(path), []).append(uri)
            self._by_name.setdefault(posixpath.basename(_plain(path)), []).append(uri)

    def image_of(self, xml: str) -> str | None:
        """Return the picture that an XML file's name tells; None where none or several may be meant."""
        path = without_extension(xml)
        paths = [path, *(_ANNOTATIONS.sub(rf"\1{folder}", path) for folder in ("JPEGImages", "images"))]
        as_written = (self._as_written.get(path, ()) for path in paths)
        for found in (*as_written, *(self._by_path.get(_plain(path), ()) for path in paths), self._named(path)):
            if len(found) == 1:
                return found[0]
        return None

    def by_file_name(self, name: str) -> str | None:
        """Return the one picture of a file's name."""
        found = [
            uri
            for uri in self._named(without_extension(name))
            if in_one_form(posixpath.basename(uri)) == in_one_form(name)
        ]
        return found[0] if len(found) == 1 else None

    def _named(self, path: str) -> Sequence[str]:
        return self._by_name.get(posixpath.basename(_plain(path)), ())


class Voc:
    """`voc:VOC2012`, `voc:VOC2012?set=train`; `?origin=0` where corners count from 0 and are edges."""

    kind: ClassVar[str] = "voc"

    def __init__(self, rest: str, *, allow: Sequence[str] = ()) -> None:
        path, options = split_options(rest, known=("set", "origin"))
        self._location = Location.of(path).allowing(allow)
        self._set = options.get("set")
        origin = options.get("origin", "1")
        if not self._location.is_folder:
            raise SourceError(f"{path}: a VOC input is a folder with XML files and pictures; name the folder")
        if origin not in ("0", "1"):
            raise SourceError(f"{path}: ?origin={origin} is neither 1, as the format has it, nor 0")
        self._origin = int(origin)

    def files(self) -> Iterator[SourceFile]:
        """Yield the pictures and XML files, and the list of the set."""
        items = self._items()
        layout = _Layout(self._location.files())
        uris = {uri for item in items for uri in (item.uri, item.record) if uri} | {*self._lists(layout)}
        for uri in sorted(uris):
            yield layout.files.get(uri) or SourceFile(uri=uri, size=0, etag="")

    @property
    def root(self) -> str:
        """The folder that uris are relative to."""
        return self._location.root

    def describe(self) -> Description:
        """Count the pictures and XML files, and name all other files."""
        items = self._items()
        uris = [item.uri for item in items if item.drop is None]
        num_xmls = sum(item.record is not None for item in items)
        read = {file.uri for file in self.files()}
        background = len(uris) - num_xmls
        note = f"{background:,} pictures have no XML file, which says that nothing is on them"
        return Description(
            images=dict(sorted(Counter(map(suffix_of, uris)).items())),
            num_images=len(uris),
            boxes=(f"{num_xmls:,} XML files, corners counted from {self._origin}",),
            unread=unread_files(file.uri for file in self._location.files() if file.uri not in read),
            notes=(note,) if background else (),
        )

    def parts(self, shard_size: int, repack: bool) -> Iterator[tuple[SourcePart, ...]]:
        """Yield the pictures in the order of their paths, `shard_size` a shard, then XML files without one."""
        yield from list_parts(self._items(), shard_size)

    def read(self, part: SourcePart) -> Iterator[SourceItem]:
        """Yield the part's pictures with their objects."""
        yield from read_listed(part, self._location, read_record=self._read_record)

    def _read_record(self, data: bytes, name: str) -> SampleRecord:
        return read_voc(data, name, origin=self._origin)

    def _items(self) -> list[ListedItem]:
        """Join pictures and XML files. Raises SourceError where there are none of either that belong together."""
        layout = _Layout(self._location.files())
        if not layout.xmls:
            raise SourceError(f"{self._location}: found no .xml file; check the path, or give it as folder:PATH")
        records: dict[str, str] = {}
        lost: dict[str, SampleError] = {}
        for xml in layout.xmls:
            try:
                image = self._image_of(xml, layout)
            except SampleError as error:
                lost[xml] = error
                continue
            if records.setdefault(image, xml) != xml:
                told = f"{xml}: is of {image}, which has {records[image]} already"
                lost[xml] = SampleError(Reason.BAD_RECORD, told)
        if not records:
            first = next(iter(lost.values()))
            raise SourceError(f"{self._location}: no XML file is of a picture there; the first: {first}")
        wanted = self._wanted(layout)
        uris = [uri for uri in layout.images if wanted is None or _stem(uri) in wanted]
        named = zip(keys_of_files(uris), uris, strict=True)
        items = [ListedItem(key=key, uri=uri, record=records.get(uri)) for key, uri in named]
        dead = {xml: error for xml, error in lost.items() if wanted is None or _stem(xml) in wanted}
        known = {*map(_stem, uris), *map(_stem, dead)}
        for name in wanted or ():
            if name not in known:
                dead[name] = SampleError(
                    Reason.MISSING, f"{name}: the set {self._set} names it, and no picture is there"
                )
        items += [ListedItem(key=as_key(f"xml {name}"), uri=name, drop=error.drop) for name, error in dead.items()]
        return items

    def _image_of(self, xml: str, layout: _Layout) -> str:
        """Return the picture of an XML file. Raises SampleError where there is none."""
        image = layout.image_of(xml)
        if image is None:
            name = (parse_xml(read_file(self._location, xml), xml).findtext("filename") or "").strip()
            image = layout.by_file_name(posixpath.basename(name.replace("\\", "/")))
        if image is None:
            told = f"{xml}: no picture of its name, nor one called {name[:100]!r} as its <filename> says"
            raise SampleError(Reason.MISSING, told)
        return image

    def _lists(self, layout: _Layout) -> list[str]:
        """Return the lists of the wanted set. Raises SourceError, naming the sets there are, where it is none."""
        if self._set is None:
            return []
        lists = {uri: _stem(uri) for uri in layout.files if "ImageSets" in uri.split("/") and suffix_of(uri) == ".txt"}
        found = [uri for uri, name in lists.items() if name == self._set]
        main = [uri for uri in found if "/Main/" in uri] or found
        if len(main) != 1:
            there = ", ".join(sorted({*lists.values()})[:20]) or "no ImageSets"
            raise SourceError(f"{self._location}: ?set={self._set} names {len(main)} lists; there are {there}")
        return main

    def _wanted(self, layout: _Layout) -> Mapping[str, None] | None:
        """Return the names in the set; None for all. A second column of 1, 0, -1 tells a class, and is passed over."""
        lists = self._lists(layout)
        if not lists:
            return None
        lines = lines_of(read_file(self._location, lists[0]))
        known = {*map(_stem, layout.images), *map(_stem, layout.xmls)}
        return dict.fromkeys(_of_set(line, known) for line in lines if line.strip())


def _of_set(line: str, known: Collection[str]) -> str:
    """Return the name on a line of a set, which may hold blanks, folders, a picture's suffix, or be quoted.

    Behind it may be numbers: of a class, of a person in `Layout`, of a person and an action in `Action`.
    """
    found = _SET_LINE.fullmatch(line)
    for name in (line.strip(), found[2] if found else line.strip()):
        stem = in_one_form(posixpath.basename(without_extension(name) if is_image(name) else name))
        if stem in known:
            return stem
    first, *columns = in_one_form(line).split()
    is_numbered = all(column.removeprefix("-").isdecimal() for column in columns)
    return first if is_numbered and first in known else stem


def _plain(path: str) -> str:
    return in_one_form(path).lower()


def _stem(uri: str) -> str:
    return in_one_form(posixpath.basename(without_extension(uri)))
