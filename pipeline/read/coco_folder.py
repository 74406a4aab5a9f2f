"""Folders of COCO files as tools write them: which JSON files there are, and where the pictures of each lie.

train/_annotations.coco.json                 Roboflow: the pictures beside it, a folder a split
labels.json                                  FiftyOne: the pictures in data/
annotations/instances_train.json             CVAT and COCO itself: in images/train, train or images; captions in
                                             annotations/captions_train.json
each of them also as .json.gz
"""

import posixpath
import re
from collections.abc import Collection
from dataclasses import dataclass

from pipeline.read.packed_text import plain_name

_ROBOFLOW = "_annotations.coco.json"
_INSTANCES = re.compile(r"annotations/instances_(.+)\.json")


@dataclass(frozen=True, kw_only=True)
class CocoIndex:
    """A COCO file of a folder; all names are relative to the folder."""

    uri: str
    split: str
    """What the layout calls it: `train`, `val2017`; "" where it has no splits."""
    images: str
    """The folder that its file names are relative to; "" for the folder itself."""
    captions: str | None = None
    """The file of the captions."""


def find_indexes(uris: Collection[str]) -> list[CocoIndex]:
    """Return the COCO files among the files of a folder, in the order of their names; none where no layout is known."""
    by_name = {plain_name(uri): uri for uri in sorted(uris, reverse=True)}  # a plain file before its compressed copy
    found = []
    for path, uri in sorted(by_name.items()):
        folder, _, name = path.rpartition("/")
        match = _INSTANCES.fullmatch(path)
        if name == _ROBOFLOW:
            found.append(CocoIndex(uri=uri, split=posixpath.basename(folder), images=folder))
        elif path == "labels.json" and any(other.startswith("data/") for other in uris):
            found.append(CocoIndex(uri=uri, split="", images="data"))
        elif match is not None:
            captions = by_name.get(f"annotations/captions_{match[1]}.json")
            images = _images_of(match[1], uris)
            found.append(CocoIndex(uri=uri, split=match[1], images=images, captions=captions))
    return found


def _images_of(split: str, uris: Collection[str]) -> str:
    folders = (f"images/{split}", split, "images")
    return next((folder for folder in folders if any(uri.startswith(f"{folder}/") for uri in uris)), "")
