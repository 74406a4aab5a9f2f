"""Flickr30k Entities: sentences with their phrases marked, and XML files with the boxes of what phrases mean.

    FOLDER/Sentences/1.txt       [/EN#7/people Two men] sit on [/EN#8/other a bench] .        a sentence a line
    FOLDER/Annotations/1.xml     <object> <name>7</name> <bndbox> or <nobndbox>1</nobndbox>    a box of an entity
    FOLDER/.../1.jpg             or below ?images=DIR

A region is a box with a phrase: an entity that five sentences call by three phrases gives its box three times. The
sentences are the picture's captions. Corners count from 1 and are inside, as VOC's are. Entities that are in no box
(scenes, things out of sight) give no region.
"""

import posixpath
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

from pipeline.read.annotated import Annotated, Entry
from pipeline.read.base import SourceError
from pipeline.read.formats import is_image
from pipeline.read.items import SampleError, read_file
from pipeline.read.keys import without_extension
from pipeline.read.location import Location
from pipeline.read.record import region_of
from pipeline.read.spec import split_options
from pipeline.read.voc_xml import parse_xml, read_voc
from pipeline.sample import GivenRegion
from schemas.text import lines_of

_PHRASE = re.compile(r"\[/EN#(\d+)((?:/[^\s\]]+)*)\s+([^\]]*)\]")
_REQUESTS = 16


class Flickr30k(Annotated):
    """`flickr30k:FOLDER?images=DIR`, with `Sentences` and `Annotations` in FOLDER; `?split=train.txt` lists names."""

    kind: ClassVar[str] = "flickr30k"

    def __init__(self, rest: str, *, allow: Sequence[str] = ()) -> None:
        path, options = split_options(rest, known=("images", "split"))
        location = Location.of(path)
        found = [file.uri for file in location.files()] if location.is_folder else []
        self._root = Location(root=location.root)
        self._texts = {_stem(uri): uri for uri in found if re.search(r"(^|/)Sentences/[^/]+\.txt\Z", uri)}
        self._xmls = {_stem(uri): uri for uri in found if re.search(r"(^|/)Annotations/[^/]+\.xml\Z", uri)}
        if not self._xmls or not self._texts:
            raise SourceError(f"{path}: found no Annotations/*.xml with Sentences/*.txt; unpack both there")
        lists = [location.related(options["split"])] if "split" in options else []
        self._wanted = None
        if lists:
            lines = lines_of(read_file(lists[0], lists[0].name or ""))
            named = [line.strip() for line in lines if line.strip()]
            self._wanted = tuple(dict.fromkeys(_stem(name) if is_image(name) else name for name in named))
        files = sorted({*self._texts.values(), *self._xmls.values()})
        images = location.related_folder(options["images"]) if "images" in options else self._root
        super().__init__([*(Location(root=location.root, name=uri) for uri in files), *lists], images, allow=allow)

    def _options(self) -> object:
        return self._wanted

    def _entries(self) -> Iterator[Entry]:
        stems = sorted({*self._texts, *self._xmls}) if self._wanted is None else self._wanted
        if self._root.is_local:
            yield from map(self._entry, stems)
            return
        with ThreadPoolExecutor(_REQUESTS) as pool:
            yield from pool.map(self._entry, stems)

    def _entry(self, stem: str) -> Entry:
        absent = [name for name, uris in (("Sentences", self._texts), ("Annotations", self._xmls)) if stem not in uris]
        if len(absent) == 2:
            return Entry(files=(), where=stem, problem="the list names it, and it has neither sentences nor boxes")
        note = f"{stem} has no file in {absent[0]}" if absent else None
        try:
            sentences, phrases = self._sentences(stem)
            size, given, name = self._boxes(stem)
        except SampleError as error:
            return Entry(files=(), where=stem, problem=str(error))
        regions = tuple(region for entity in given for region in _regions(entity, phrases, self._xmls[stem]))
        files = tuple(dict.fromkeys([f"{stem}.jpg", *([name] if name else [])]))
        return Entry(files=files, where=stem, captions=tuple(sentences), regions=regions, size=size, note=note)

    def _sentences(self, stem: str) -> tuple[list[str], dict[str, dict[str, str]]]:
        """Return the sentences without their marks, and the phrases of each entity, each with its kind."""
        if stem not in self._texts:
            return [], {}
        sentences, phrases = [], dict[str, dict[str, str]]()
        for line in lines_of(read_file(self._root, self._texts[stem])):
            for entity, kinds, phrase in _PHRASE.findall(line):
                phrases.setdefault(entity, {}).setdefault(phrase.strip(), kinds.strip("/"))
            sentences.append(_PHRASE.sub(r"\3", line).strip())
        return sentences, phrases

    def _boxes(self, stem: str) -> tuple[tuple[int, int] | None, list[tuple[list[str], GivenRegion]], str | None]:
        """Return the stated size, (entities, box) of each object that has a box, and the file that the XML names."""
        if stem not in self._xmls:
            return None, [], None
        uri = self._xmls[stem]
        data = read_file(self._root, uri)
        root = parse_xml(data, uri)
        given = []
        record = read_voc(data, uri)
        for entry, region in zip(root.findall("object"), record.given, strict=True):
            if entry.find("bndbox") is not None:
                given.append(([(name.text or "").strip() for name in entry.findall("name")], region))
        return record.given_size, given, (root.findtext("filename") or "").strip() or None


def _regions(
    entity: tuple[list[str], GivenRegion], phrases: dict[str, dict[str, str]], uri: str
) -> Iterator[GivenRegion]:
    """Yield a region for each phrase of what is in a box; one without a caption where no sentence speaks of it."""
    names, region = entity
    said = [(name, phrase, kind) for name in names for phrase, kind in phrases.get(name, {}).items()]
    for place, (name, phrase, kind) in enumerate(said or [(next(iter(names), ""), None, None)]):
        yield region_of(
            region.box,
            f"{uri}: entity {name}",
            id=f"{name}.{region.id}.{place}",
            caption=phrase,
            label=kind or None,
            problem=region.problem,
        )


def _stem(uri: str) -> str:
    return posixpath.basename(without_extension(uri))
