"""Classes of pixels in files, a PNG or TIFF an image: COCO-Stuff, ADE20K, or any.

coco-stuff:FOLDER  PNGs of COCO's ids less 1; the 171 that are used, ascending. One of the 11 others tells of maps
                   that other tools have made of these, places in the list under the same names, and is refused
ade150:FOLDER      PNGs of 0 (none) and 1 to 150
ade847:FOLDER      ADE20K's own `..._seg.png` beside its images, coded in red and green; the list states the 847 ids
maps:FOLDER        PNGs or TIFFs of places in the class list; `ignore` (255) is none

All take `images=FOLDER` and `classes=FILE`: JSON, a list of names, or of objects with `name` and, for ade847, `id`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from trainer.data.decode import Pixels, UnusableSampleError
from trainer.errors import TrainingError
from trainer.evaluate.metrics import Ints
from trainer.evaluate.pixels import decode_upright
from trainer.segmentation.mask_loss import NO_CLASS

_UNUSED_STUFF = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
"""COCO's ids less 1 that no annotation has, of 0 to 181."""
_LABELS, _IMAGES = (".png", ".tif", ".tiff"), (".jpg", ".jpeg", ".png", ".webp")
_ADE_FULL_IDS = 26 * 256
_ADE_FULL_SHORT_PX = 512
"""Images of the full ADE20K are made this small at their shorter side, where they are larger, before all else."""

Raw = npt.NDArray[np.integer]


@dataclass(frozen=True, kw_only=True)
class MapKind:
    """How files of a kind say classes."""

    num_classes: int | None
    """How many names the list must have; None where any number will do."""
    labels: Callable[[Raw, "ClassList", int], tuple[Ints, str]]
    """From a file's values, the list and `ignore` to `[h, w]` places in the list, with the sentence that says what
    may stand there; below NO_CLASS where it may not."""
    channels: int = 1
    suffix: str = ""
    """What a label map's name has after its image's."""
    short_px: int | None = None


@dataclass(frozen=True, kw_only=True)
class ClassList:
    """The names of a file's classes."""

    where: str
    names: tuple[str, ...]
    ids: tuple[int, ...] | None
    """Their numbers in ADE20K's full data, where the file has them."""


@dataclass(frozen=True, kw_only=True)
class LabelMaps:
    """Images with a label map each."""

    kind: MapKind
    classes: ClassList
    ignore: int
    names: Sequence[str]
    """Their paths in the folders of images and of maps, without suffix."""
    images: Sequence[Path]
    maps: Sequence[Path]

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.images)

    def key(self, image: int) -> str:
        """Return an image's file name, with the folders below that of all images."""
        return f"{self.names[image]}{self.images[image].suffix}"

    def identity(self, image: int) -> str:
        """Return what a fingerprint takes of an image's labels: their file's name and size."""
        return f"{self.maps[image].name} {self.maps[image].stat().st_size}"

    def read(self, image: int) -> tuple[Pixels, Ints]:
        """Return `[h, w, 3]` and `[h, w]`: places in the list, NO_CLASS. Raises UnusableSampleError."""
        try:
            pixels, _ = decode_upright(self.images[image].read_bytes())
        except OSError as error:
            raise UnusableSampleError(f"cannot be read: {error}") from error
        labels = self._labels(self.maps[image])
        if labels.shape != pixels.shape[:2]:
            raise UnusableSampleError(
                f"its label map {self.maps[image]} is {labels.shape[1]} x {labels.shape[0]} pixels, the image "
                f"{pixels.shape[1]} x {pixels.shape[0]}"
            )
        return _smaller(pixels, labels, self.kind.short_px)

    def _labels(self, file: Path) -> Ints:
        try:
            with Image.open(file) as image:
                raw = np.asarray(image)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise UnusableSampleError(f"its label map {file} cannot be decoded: {error}") from error
        channels = raw.shape[2] if raw.ndim == 3 else 1
        if channels != self.kind.channels or raw.dtype.kind not in "ui":
            wanted = "one whole number a pixel" if self.kind.channels == 1 else "red, green and blue"
            raise UnusableSampleError(
                f"its label map {file} has {channels} channels of {raw.dtype}, where {wanted} should be: it is a "
                "picture of labels, or of another kind of data"
            )
        labels, may_be = self.kind.labels(raw, self.classes, self.ignore)
        if (labels < NO_CLASS).any():
            y, x = (int(place[0]) for place in np.nonzero(labels < NO_CLASS))
            raise UnusableSampleError(f"its label map {file} has {raw[y, x]} at x {x}, y {y}, where {may_be}")
        return labels


def open_maps(kind: str, folder: str, options: Mapping[str, str], where: str) -> tuple[LabelMaps, Mapping[str, int]]:
    """Return the label maps of a folder, and how many images have none, by why. Raises TrainingError."""
    how = KINDS[kind]
    classes = read_class_list(options.get("classes"), where)
    if how.num_classes is not None and len(classes.names) != how.num_classes:
        raise TrainingError(
            f"{where}: {classes.where} has {len(classes.names)} names, and {kind} has {how.num_classes} classes"
        )
    twice = sorted({name for name in classes.names if classes.names.count(name) > 1})
    if how.num_classes is None and twice:
        raise TrainingError(
            f"{where}: {classes.where} has {twice[0]!r} twice: no pixel can be told to be of one of them; "
            "give each a name of its own"
        )
    if not set(classes.ids or ()) <= set(range(_ADE_FULL_IDS)):
        raise TrainingError(f"{where}: {classes.where}: ids are from 0 to {_ADE_FULL_IDS - 1}")
    if kind == "ade847" and classes.ids is None:
        raise TrainingError(f'{where}: {classes.where} must say the ids: [{{"name": "wall", "id": 2978}}, ...]')
    maps = _files(folder, _LABELS, how.suffix, where, "label map")
    pictures = options.get("images", folder)
    if not how.suffix and Path(pictures).resolve() == Path(folder).resolve():
        raise TrainingError(
            f"{where}: say where the images are by images=FOLDER: label maps have a folder of their own"
        )
    images = _files(pictures, _IMAGES, "", where, "image")
    if how.suffix:
        images = {name: file for name, file in images.items() if not name.endswith(how.suffix)}
    alone = sorted(maps.keys() - images.keys())
    if alone:
        raise TrainingError(
            f"{where}: {len(alone)} of {len(maps)} label maps have no image, the first {maps[alone[0]]}; say where the "
            "images are by images=FOLDER"
        )
    names = sorted(maps)
    found = LabelMaps(
        kind=how,
        classes=classes,
        ignore=_ignore(options, where),
        names=names,
        images=[images[name] for name in names],
        maps=[maps[name] for name in names],
    )
    try:
        found.read(0)
    except UnusableSampleError as error:
        raise TrainingError(f"{where}: {found.key(0)}: {error}") from error
    missing = len(images) - len(maps)
    return found, {"image without a label map": missing} if missing else {}


def read_class_list(file: str | None, where: str) -> ClassList:
    """Read names, in their order, from JSON. Raises TrainingError."""
    if file is None:
        raise TrainingError(f"{where}: name the classes by classes=FILE.json, a list of names in the order of the data")
    try:
        entries = json.loads(Path(file).read_text(encoding="utf-8-sig"))
        if entries and all(isinstance(entry, dict) for entry in entries):
            entries = sorted(entries, key=lambda entry: int(entry.get("trainId", 0)))
            ids = tuple(int(entry["id"]) for entry in entries) if all("id" in entry for entry in entries) else None
            return ClassList(where=file, names=tuple(str(entry["name"]) for entry in entries), ids=ids)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise TrainingError(f"{where}: classes={file}: {error}; a list of names is wanted, as JSON") from error
    if not entries or not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise TrainingError(f"{where}: classes={file}: it is no list of names: one is wanted, as JSON")
    return ClassList(where=file, names=tuple(entries), ids=None)


def _ignore(options: Mapping[str, str], where: str) -> int:
    text = options.get("ignore", "255")
    if not text.isdigit():
        raise TrainingError(f"{where}: ignore={text}: a value of pixels is wanted, such as 255 or 65535")
    return int(text)


def _files(folder: str, suffixes: Sequence[str], ending: str, where: str, what: str) -> dict[str, Path]:
    """Return the files in a folder and those below it, by their path in it less `ending` and suffix."""
    root = Path(folder)
    if not root.is_dir():
        raise TrainingError(f"{where}: {folder}: there is no such folder")
    files = sorted(file for file in root.rglob("*") if file.suffix.lower() in suffixes and file.stem.endswith(ending))
    found: dict[str, Path] = {}
    for file in files:
        other = found.setdefault(str(file.relative_to(root).with_suffix("")).removesuffix(ending), file)
        if other is not file:
            raise TrainingError(f"{where}: {other} and {file} are the {what} of one name: take one of them away")
    if not found:
        raise TrainingError(f"{where}: {folder}: no {what} is in it ({', '.join(suffixes)})")
    return found


def _smaller(pixels: Pixels, labels: Ints, short_px: int | None) -> tuple[Pixels, Ints]:
    short = min(pixels.shape[:2])
    if short_px is None or short <= short_px:
        return pixels, labels
    height, width = (max(round(length * short_px / short), 1) for length in pixels.shape[:2])
    small = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
    nearest = Image.fromarray(labels.astype(np.int32)).resize((width, height), Image.Resampling.NEAREST)
    return np.asarray(small), np.asarray(nearest).astype(np.int64)


def _stuff(raw: Raw, classes: ClassList, ignore: int) -> tuple[Ints, str]:
    table = np.full(256, NO_CLASS - 1, dtype=np.int64)
    used = [number for number in range(182) if number not in _UNUSED_STUFF]
    table[255] = NO_CLASS
    table[used] = np.arange(len(used))
    may_be = (
        "0 to 181, without the 11 that COCO-Stuff does not use, and 255 may be (maps of places in the list: `maps:`)"
    )
    return table[np.where(raw > 255, 254, raw)], may_be


def _ade(raw: Raw, classes: ClassList, ignore: int) -> tuple[Ints, str]:
    labels = raw.astype(np.int64) - 1
    labels[labels >= len(classes.names)] = NO_CLASS - 1
    return labels, f"0 to {len(classes.names)} may be"


def _ade_full(raw: Raw, classes: ClassList, ignore: int) -> tuple[Ints, str]:
    coded = raw[..., 0].astype(np.int64) // 10 * 256 + raw[..., 1]
    table = np.full(_ADE_FULL_IDS, NO_CLASS, dtype=np.int64)
    for place, number in enumerate(classes.ids or ()):
        table[number] = place
    return table[coded], ""


def _plain(raw: Raw, classes: ClassList, ignore: int) -> tuple[Ints, str]:
    labels = raw.astype(np.int64)
    wrong = (labels >= len(classes.names)) | (labels < 0)
    labels[wrong] = NO_CLASS - 1
    labels[raw == ignore] = NO_CLASS
    return labels, f"0 to {len(classes.names) - 1} and {ignore} may be"


KINDS = {
    "coco-stuff": MapKind(num_classes=171, labels=_stuff),
    "ade150": MapKind(num_classes=150, labels=_ade),
    "ade847": MapKind(num_classes=847, labels=_ade_full, channels=3, suffix="_seg", short_px=_ADE_FULL_SHORT_PX),
    "maps": MapKind(num_classes=None, labels=_plain),
}
OPTIONS = ("images", "classes", "ignore")
