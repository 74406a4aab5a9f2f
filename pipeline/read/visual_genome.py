"""Visual Genome: descriptions of regions, or objects with their names, of pictures that image_data.json lists.

    FOLDER/image_data.json             sizes, and addresses whose last folder is that of the picture: VG_100K_2/1.jpg
    FOLDER/region_descriptions.json    [{"id": 1, "regions": [{"region_id", "x", "y", "width", "height", "phrase"}]}]
    FOLDER/objects.json                [{"image_id": 1, "objects": [{"object_id", "x", "y", "w", "h", "names"}]}]

A phrase is the caption of its region, the first of an object's names its label. Boxes are in pixels.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from pipeline.read.annotated import Annotated, Entry
from pipeline.read.base import SourceError
from pipeline.read.items import stated_size
from pipeline.read.json_entries import json_entries, object_problem
from pipeline.read.location import Location
from pipeline.read.record import region_of, words
from pipeline.read.spec import split_options
from pipeline.sample import GivenRegion
from schemas.loose_json import id_text, number, shown, text

REGIONS, OBJECTS, IMAGES = "region_descriptions.json", "objects.json", "image_data.json"
_FILES = {"regions": REGIONS, "objects": OBJECTS}


class VisualGenome(Annotated):
    """`visual_genome:FOLDER?images=DIR`; `?take=objects`, `?take=regions,objects`, else descriptions of regions."""

    kind: ClassVar[str] = "visual_genome"

    def __init__(self, rest: str, *, allow: Sequence[str] = ()) -> None:
        path, options = split_options(rest, known=("images", "take"))
        location = Location.of(path)
        if not location.is_folder:
            raise SourceError(f"{path}: a Visual Genome input is the folder with {IMAGES} and {REGIONS}")
        there = {file.uri for file in location.lookup([*_FILES.values(), IMAGES]) if file.etag or file.size}
        default = "regions" if REGIONS in there else "objects"
        taken = [name.strip() for name in options.get("take", default).split(",")]
        unknown = [name for name in taken if name not in _FILES]
        if unknown:
            raise SourceError(f"{path}: ?take={unknown[0]} is neither regions nor objects")
        missing = [_FILES[name] for name in taken if _FILES[name] not in there]
        if missing:
            raise SourceError(f"{path}: found no {missing[0]} there; unpack it from Visual Genome's {missing[0]}.zip")
        files = [*(_FILES[name] for name in taken), *([IMAGES] if IMAGES in there else [])]
        images = location.related_folder(options["images"]) if "images" in options else location
        super().__init__([Location(root=location.root, name=name) for name in files], images, allow=allow)

    def _entries(self) -> Iterator[Entry]:
        listed = self._listed()
        for location in self._annotations:
            if location.name != IMAGES:
                for where, value in json_entries(location):
                    yield _entry(where, value, listed)

    def _listed(self) -> dict[str, tuple[str | None, tuple[int, int] | None]]:
        """Return (address, size) of each picture by id, as image_data.json has them."""
        found: dict[str, tuple[str | None, tuple[int, int] | None]] = {}
        for location in self._annotations:
            for _, value in json_entries(location) if location.name == IMAGES else ():
                if isinstance(value, dict) and (key := _image_id(value)) is not None:
                    size = stated_size(number(value.get("width")), number(value.get("height")))
                    found.setdefault(key, (text(value.get("url")), size))
        return found


def _image_id(entry: Mapping[str, Any]) -> str | None:
    """Return the id of a picture: `image_id`, in older files and in region_descriptions.json `id`."""
    return id_text(entry.get("image_id")) or id_text(entry.get("id"))


def _entry(where: str, value: Any, listed: Mapping[str, tuple[str | None, tuple[int, int] | None]]) -> Entry:
    problem = object_problem(value)
    if problem is not None:
        return Entry(files=(), where=where, problem=problem)
    found = [(kind, value.get(kind)) for kind in ("regions", "objects") if value.get(kind) is not None]
    said = [entry for kind, entries in found if isinstance(entries, list) for entry in ((kind, e) for e in entries)]
    key = _image_id(value)
    if key is None:
        key = next((id_text(e.get("image_id")) for _, e in said if isinstance(e, dict) and e.get("image_id")), None)
    if key is None:
        return Entry(files=(), where=where, problem=f"its image id is {shown(value.get('id'))}, not an id")
    url, size = listed.get(key, (text(value.get("image_url")), None))
    by_url = ["/".join(url.rstrip("/").split("/")[-2:])] if url else []
    regions = [_region(entry, place, f"{where}: {kind}[{place}]") for place, (kind, entry) in enumerate(said)]
    odd = [kind for kind, entries in found if not isinstance(entries, list)]
    return Entry(
        files=(*by_url, f"{key}.jpg"),
        where=where,
        regions=tuple(regions),
        size=size,
        url=url,
        note=f"{where}: {odd[0]!r} is no list, so none is read" if odd else None,
    )


def _region(entry: Any, place: int, where: str) -> GivenRegion:
    fields = entry if isinstance(entry, dict) else {}
    x, y = number(fields.get("x")), number(fields.get("y"))
    width, height = (number(fields.get(long, fields.get(long[0]))) for long in ("width", "height"))
    box = None
    if x is not None and y is not None and width is not None and height is not None:
        box = (x, y, x + width, y + height)
    names = fields.get("names")
    name = names[0] if isinstance(names, list) and names else names or fields.get("name")
    said = fields.get("region_id", fields.get("object_id", fields.get("id")))
    return region_of(
        box,
        where,
        id=id_text(said) or str(place),
        caption=words(fields.get("phrase")),
        label=text(name),
        problem=None if isinstance(entry, dict) else f"{where} is {shown(entry)}",
    )
