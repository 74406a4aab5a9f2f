"""YOLO data sets: Ultralytics' data.yaml, pictures in folders or lists, and labels in text files (`yolo_labels`).

    data.yaml or its folder --_Layout--> pictures of the splits, and the label file of each --read--> SourceItem

The splits are relative to `path`, which is relative to data.yaml; where nothing is there, as on another machine, to a
folder of its name beside data.yaml, or to data.yaml's own. A picture's labels lie where the last `/images/` of its path
is `/labels/`, else beside it. A picture without a label file, or with an empty one, has no objects.
"""

import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

from pipeline.read.base import ListedItem, SourceError, SourceFile, SourcePart
from pipeline.read.describe import Description, unread_files
from pipeline.read.formats import is_image, suffix_of
from pipeline.read.items import read_file
from pipeline.read.keys import in_one_form, keys_of_files, without_extension
from pipeline.read.listed import read_listed
from pipeline.read.location import Location
from pipeline.read.names import Names, check_allowed, refusal
from pipeline.read.parts import list_parts
from pipeline.read.record import SampleRecord
from pipeline.read.spec import split_options
from pipeline.read.yolo_labels import read_labels
from pipeline.read.yolo_yaml import SPLITS, DataYaml, parse_data_yaml
from pipeline.sample import SourceItem
from schemas.text import lines_of

_CLASSES = "classes.txt"
"""Names of the classes, a line each, where a labelling tool writes no data.yaml."""
_YAMLS = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")


@dataclass(kw_only=True)
class _Layout:
    """What a data set's files are for."""

    base: str = ""
    """What the splits are relative to, itself relative to data.yaml's folder."""
    images: dict[str, SourceFile] = field(default_factory=dict)
    """By uri; those that only a list names too, with size 0 and no etag."""
    labels: dict[str, SourceFile] = field(default_factory=dict)
    """By the uri of their picture."""
    lists: list[SourceFile] = field(default_factory=list)


class Yolo:
    """`yolo:data.yaml`, or its folder; `?split=train` or `?split=train,val` takes these splits, else all are taken."""

    kind: ClassVar[str] = "yolo"

    def __init__(self, rest: str, *, allow: Sequence[str] = ()) -> None:
        path, options = split_options(rest, known=("split",))
        location = Location.of(path)
        if location.is_folder:
            found = [file.uri for file in location.lookup([*_YAMLS, _CLASSES]) if file.etag]
            if not found:
                looked_for = ", ".join([*_YAMLS, _CLASSES])
                raise SourceError(f"{path}: found none of {looked_for} there; name the file, as in yolo:FOLDER/x.yaml")
            location = Location(root=location.root, name=found[0])
        self._file = location
        self._location = Location(root=location.root).allowing(allow)
        self._names = Names(self._location)
        self._splits = [split.strip() for split in options["split"].split(",")] if "split" in options else None

    @cached_property
    def _yaml(self) -> DataYaml:
        data = read_file(self._file, self._file.name or "")
        if self._file.name == _CLASSES:
            names = {number: line.strip() for number, line in enumerate(lines_of(data)) if line.strip()}
            return DataYaml(folder=None, splits={}, names=names, num_keypoint_columns=0)
        return parse_data_yaml(data, str(self._file))

    def files(self) -> Iterator[SourceFile]:
        """Yield data.yaml, the lists that it names, the pictures and their labels."""
        layout = self._layout()
        found = [*self._file.files(), *layout.lists, *layout.images.values(), *layout.labels.values()]
        yield from sorted(found, key=lambda file: file.uri)

    @property
    def root(self) -> str:
        """The folder that uris are relative to."""
        return self._location.root

    def describe(self) -> Description:
        """Count the pictures and label files, say which splits are read and from where, and name all other files."""
        layout = self._layout()
        read = {file.uri for file in self.files()}
        splits = ", ".join(self._wanted()) or "none named: all pictures below"
        num_background = len(layout.images) - len(layout.labels)
        background = f"{num_background:,} pictures have no label file, which says that nothing is on them"
        return Description(
            images=dict(sorted(Counter(map(suffix_of, layout.images)).items())),
            num_images=len(layout.images),
            boxes=(f"{len(layout.labels):,} label files",),
            unread=unread_files(file.uri for file in self._location.files() if file.uri not in read),
            notes=(f"splits: {splits}, in {self._location.url(layout.base)}", *([background] * bool(num_background))),
        )

    def parts(self, shard_size: int, repack: bool) -> Iterator[tuple[SourcePart, ...]]:
        """Yield the pictures in the order of their paths, `shard_size` a shard."""
        layout = self._layout()
        uris = sorted(layout.images)
        records = (layout.labels[uri].uri if uri in layout.labels else None for uri in uris)
        named = zip(keys_of_files(uris), uris, records, strict=True)
        items = [ListedItem(key=key, uri=uri, record=record) for key, uri, record in named]
        yield from list_parts(items, shard_size)

    def read(self, part: SourcePart) -> Iterator[SourceItem]:
        """Yield the part's pictures with their objects."""
        yield from read_listed(part, self._location, read_record=self._read_record)

    def _read_record(self, data: bytes, name: str) -> SampleRecord:
        return read_labels(data, name, self._yaml.names, self._yaml.num_keypoint_columns)

    def _wanted(self) -> dict[str, tuple[str, ...]]:
        """Return the splits that are read. Raises SourceError for one that the file does not name."""
        splits = self._yaml.splits
        unknown = [split for split in self._splits or () if split not in splits]
        if unknown:
            there = ", ".join(splits) or f"none of {', '.join(SPLITS)}"
            raise SourceError(f"{self._file}: names no split {unknown[0]!r}; it has {there}")
        return {split: places for split, places in splits.items() if self._splits is None or split in self._splits}

    def _layout(self) -> _Layout:
        """Find the pictures and labels. Raises SourceError where there are none, saying what was looked for."""
        listed = {file.uri: file for file in self._location.files()}
        places = [place for split in self._wanted().values() for place in split] or ["."]
        layout = _Layout(base=next((base for base in self._bases() if self._any_there(base, places, listed)), ""))
        for place in places:
            self._add_place(place, layout, listed)
        if not layout.images:
            raise SourceError(self._nothing_found(places))
        check_allowed(layout.images.keys(), self._location, str(self._file))
        wanted = {uri: _label_uri(uri) for uri in layout.images}
        outside = self._location.lookup(sorted(label for label in wanted.values() if label.startswith("../")))
        there = listed | {file.uri: file for file in outside if file.etag}
        as_written = set(wanted.values())
        by_form = {in_one_form(uri): file for uri, file in there.items() if uri not in as_written}
        labels = ((uri, there.get(label, by_form.get(in_one_form(label)))) for uri, label in wanted.items())
        layout.labels = {uri: file for uri, file in labels if file is not None}
        if not layout.labels:
            first = min(wanted)
            raise SourceError(
                f"{self._file}: none of its {len(wanted):,} pictures has a label file; the first, {first}, would have "
                f"{wanted[first]}. Put the labels there, or give the pictures alone: folder:PATH"
            )
        return layout

    def _bases(self) -> list[str]:
        folder = self._yaml.folder
        return [""] if folder is None else [self._names.uri(folder), posixpath.basename(folder.rstrip("/")), ""]

    def _any_there(self, base: str, places: Iterable[str], listed: dict[str, SourceFile]) -> bool:
        return any(self._below(uri, listed) for place in places for uri in self._uris(base, place))

    def _uris(self, base: str, place: str) -> list[str]:
        """Return what a place may mean: Roboflow writes `../train/images` for what lies beside data.yaml."""
        written = [place, place.removeprefix("../")] if place.startswith("../") else [place]
        return [self._names.uri(path, base) for path in written]

    def _below(self, uri: str, listed: dict[str, SourceFile]) -> list[SourceFile]:
        """Return the file called `uri`, or those below the folder; none where it may not be read."""
        if uri == ".":
            return list(listed.values())
        if not uri.startswith("../"):
            return [file for file in listed.values() if file.uri == uri or file.uri.startswith(f"{uri}/")]
        if not self._location.allows(f"{uri}/x"):
            return []
        try:
            location = Location.of(self._location.url(uri))
        except SourceError:
            return []
        folder = uri if location.name is None else posixpath.dirname(uri)
        found = location.files()
        return [SourceFile(uri=f"{folder}/{file.uri}", size=file.size, etag=file.etag) for file in found]

    def _add_place(self, place: str, layout: _Layout, listed: dict[str, SourceFile]) -> None:
        """Add the pictures of a folder, those that a list names, or the one picture."""
        tried = (self._below(uri, listed) for uri in self._uris(layout.base, place))
        found = next((files for files in tried if files), [])
        if not found:
            raise SourceError(self._nothing_found([place]))
        lists = [file for file in found if len(found) == 1 and suffix_of(file.uri) == ".txt" and suffix_of(place)]
        layout.images |= {file.uri: file for file in found if is_image(file.uri)}
        layout.lists += lists
        for file in lists:
            lines = lines_of(read_file(self._location, file.uri))
            named = [self._named(line.strip(), file.uri, layout.base, listed) for line in lines if line.strip()]
            layout.images |= {image.uri: image for image in self._location.find(set(named))}

    def _named(self, line: str, list_uri: str, base: str, listed: dict[str, SourceFile]) -> str:
        """Return the uri of a picture in a list: `./` is the list's own folder, all else is relative to the base."""
        folder = posixpath.dirname(list_uri)
        uris = [self._names.uri(line, where) for where in ([folder] if line.startswith("./") else [base, folder])]
        return next((uri for uri in uris if uri in listed), uris[0])

    def _nothing_found(self, places: Sequence[str]) -> str:
        looked_for = dict.fromkeys(uri for base in self._bases() for place in places for uri in self._uris(base, place))
        refused = [uri for uri in looked_for if not self._location.allows(f"{uri}/x")]
        said = ", ".join(self._location.url(uri) for uri in looked_for)
        outside = f". {refusal(refused, len(looked_for), self._location, str(self._file))}" if refused else ""
        remedy = "mend 'path' and the splits there, or take those that are there, as in ?split=train"
        return f"{self._file}: no picture is at {said}; {remedy}{outside}"


def _label_uri(uri: str) -> str:
    """Return where the labels of a picture lie."""
    before, found, after = f"/{uri}".rpartition("/images/")
    return without_extension(f"{before}/labels/{after}" if found else f"/{uri}").removeprefix("/") + ".txt"
