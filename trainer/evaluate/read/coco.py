"""`coco:FILE.json?images=DIR&captions=FILE&segments=DIR`: COCO's instances, panoptic and captions, and LVIS.

Crowds are left out unless asked for. Boxes and masks are those of the file, in the frame of the size that it states.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import msgspec

from schemas.coco import CocoAnnotation, CocoError, CocoFile, CocoImage, read_coco
from schemas.loose_json import id_text
from trainer.errors import TrainingError
from trainer.evaluate.read.collect import Collector, FoundRegion
from trainer.evaluate.settings import TruthSettings
from trainer.evaluate.truth import Truth

OPTIONS = ("images", "captions", "segments")


class _Category(msgspec.Struct):
    id: Any = None
    isthing: Any = None


class _Annotation(msgspec.Struct):
    file_name: Any = None
    segments_info: Any = None


class _Extras(msgspec.Struct):
    """What `schemas.coco` passes over: it is of panoptic files alone."""

    annotations: list[_Annotation] = []
    categories: list[_Category] = []


def read(path: str, options: Mapping[str, str], settings: TruthSettings, *, masks: bool) -> Truth:
    """Return the truth of a COCO file; masks are kept where they are asked for. Raises TrainingError."""
    file, extras = _load(path)
    found = Collector(where=path, settings=settings)
    image_of = _images(file, found)
    classes = _classes(path, file)
    things = {
        id_text(category.id): bool(category.isthing) for category in extras.categories if category.isthing is not None
    }
    segments_dir = Path(options.get("segments", path.removesuffix(".json")))
    for annotation in file.annotations():
        image = image_of.get(annotation.image_id)
        if image is None or annotation.problem is not None:
            found.unusable(annotation.problem or f"annotations[{annotation.position}]: no image has its image_id")
        elif not annotation.is_region:
            _add_caption(found, image, annotation)
        else:
            extra = extras.annotations[annotation.position] if extras.annotations else _Annotation()
            is_segment = isinstance(extra.segments_info, list)
            segment = None
            if masks and is_segment and isinstance(extra.file_name, str) and (annotation.id or "").isdecimal():
                segment = (segments_dir / extra.file_name, int(annotation.id or 0))
            found.region(
                FoundRegion(
                    image=image,
                    box=annotation.box or (0, 0, 0, 0),
                    label=file.categories.get(annotation.category_id or ""),
                    caption=annotation.caption if isinstance(annotation.caption, str) else None,
                    is_crowd=bool(annotation.is_crowd),
                    is_thing=things.get(annotation.category_id),
                    outline=(annotation.rle or annotation.polygons or None) if masks and not is_segment else None,
                    segment=segment,
                )
            )
    if "captions" in options:
        _more_captions(options["captions"], image_of, found)
    if masks and segments_dir and any(region.segment for region in found.regions):
        first = next(region.segment for region in found.regions if region.segment)[0]
        if not first.is_file():
            raise TrainingError(f"{path}: no segments are there: {first}; say where the PNGs are by ?segments=FOLDER")
    return found.truth(Path(options.get("images", str(Path(path).parent))), classes=classes or None)


def _load(path: str) -> tuple[CocoFile, _Extras]:
    try:
        data = Path(path).read_bytes()
        file = read_coco(data)
    except (OSError, CocoError) as error:
        raise TrainingError(f"{path}: {error}") from error
    try:
        extras = msgspec.json.decode(data, type=_Extras)
    except msgspec.DecodeError:
        extras = _Extras()
    return file, extras


def _images(file: CocoFile, found: Collector) -> dict[str | None, int]:
    """Add the images and return their numbers by id; LVIS names them by their address alone."""
    numbers: dict[str | None, int] = {}
    for image in file.images:
        name = _name(image)
        if image.id is None or name is None:
            found.left_out["image that cannot be used"] += 1
        elif image.id not in numbers:
            numbers[image.id] = found.image(name, _size(image))
        else:
            found.left_out["image of an id that is there already"] += 1
    return numbers


def _size(image: CocoImage) -> tuple[int, int] | None:
    """Return the stated (width, height), None where they are no numbers of pixels."""
    width, height = (
        0 if side is None or not math.isfinite(side) else int(side) for side in (image.width, image.height)
    )
    return (width, height) if width > 0 and height > 0 else None


def _name(image: CocoImage) -> str | None:
    if image.file_name is not None and image.problem is None:
        return image.file_name
    return urlparse(image.url).path.lstrip("/") if image.url else None


def _classes(path: str, file: CocoFile) -> Sequence[str]:
    """Return the categories in the order of their ids."""
    if file.disputed:
        raise TrainingError(f"{path}: {next(iter(file.disputed.values()))}")
    ids = sorted(file.categories, key=lambda key: (not key.isdigit(), int(key) if key.isdigit() else 0, key))
    names = [file.categories[key] for key in ids]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise TrainingError(f"{path}: two categories are called {twice[0]!r}: no box can be told to be of one of them")
    return names


def _add_caption(found: Collector, image: int, annotation: CocoAnnotation) -> None:
    found.caption(image, annotation.caption if isinstance(annotation.caption, str) else "")


def _more_captions(path: str, image_of: Mapping[str | None, int], found: Collector) -> None:
    file, _ = _load(path)
    for annotation in file.annotations():
        image = image_of.get(annotation.image_id)
        if annotation.is_region:
            continue
        if image is None:
            found.left_out["caption of another image"] += 1
        else:
            _add_caption(found, image, annotation)
