"""What a source can say of itself before its samples are read: what is read, from where, and what is there beside it.

Names that look like captions, boxes or images and are not read are told, so that nobody takes them for read.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Literal

import msgspec

from pipeline.read.formats import NOT_READ, suffix_of

BOXES_FROM = (
    "a COCO file (coco:FILE.json?images=FOLDER), YOLO (yolo:data.yaml), Pascal VOC (voc:FOLDER), Visual Genome "
    "(visual_genome:FOLDER), Flickr30k Entities (flickr30k:FOLDER), RefCOCO (refcoco:FOLDER), conversations with boxes "
    "(grounding:FILE.jsonl), Hugging Face's `objects` in Parquet, Arrow or metadata.jsonl, GRIT's phrases in tars, "
    "and from `regions` in the .json members of WebDataset tars (shards of ours among them) or in .json files beside "
    "images"
)
NUM_LOOKED_AT = 50
"""Samples read to see what they give."""

Like = Literal["captions", "boxes", "images", "other"]


class Unread(msgspec.Struct, frozen=True, kw_only=True):
    """A column, member or kind of file that is there and is not read."""

    name: str
    like: Like
    """What it looks like by its name and type."""
    count: int | None = None
    """How many there are, where that was counted."""


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """What a source can tell of itself without reading samples."""

    images: dict[str, int] = {}
    """Number of images by suffix; empty where samples have to be read to know."""
    num_images: int | None = None
    captions: tuple[str, ...] = ()
    """Where captions are read from, in words; empty where none can be."""
    boxes: tuple[str, ...] = ()
    """Where boxes are read from, in words; empty where none can be: `manual` has no work there."""
    unread: tuple[Unread, ...] = ()
    notes: tuple[str, ...] = ()
    """Sentences to be told as they are."""
    is_quick: bool = True
    """False where reading a first sample means to fetch or unpack a whole tar."""


class InputSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What an input gives, as its plan keeps it."""

    described: Description
    num_looked_at: int
    """Samples read; the numbers below are of these."""
    num_captioned: int
    num_boxed: int
    images: dict[str, int]
    """By suffix."""
    dropped: dict[str, int]
    """By reason."""
    box_doubt: str | None = None
    """Why the given boxes can hardly be right, in words."""


_LIKE: tuple[tuple[Like, re.Pattern[str]], ...] = (
    ("boxes", re.compile(r"box|object|region|annot|detect|instanc|segm|mask|polygon|keypoint|^\.?(xml|json|label)s?$")),
    ("captions", re.compile(r"capt|text|txt|title|descr|sentence|prompt|^\.?(alt|csv|tsv|jsonl|cap|srt)$")),
    ("images", re.compile(r"image|img|photo|picture|\b(jpe?g|png|webp|gif|tiff?|bmp|heic|heif|raw|pdf)$")),
)


def like(name: str) -> Like:
    """Return what a column, member or suffix of this name looks like."""
    return next((kind for kind, pattern in _LIKE if pattern.search(name.lower())), "other")


def unread_files(uris: Iterable[str]) -> tuple[Unread, ...]:
    """Return the kinds, by suffix, of the files that are not read, most frequent first."""
    counts = Counter(suffix_of(uri) for uri in uris)
    return tuple(
        Unread(
            name=suffix or "files without suffix",
            like="images" if suffix in NOT_READ else like(suffix),
            count=count,
        )
        for suffix, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    )


def unread_fields(names: Iterable[Iterable[str]]) -> tuple[Unread, ...]:
    """Return the fields of each sample's `.json` that look like captions or boxes, most frequent first."""
    counts = Counter(name for of_sample in names for name in of_sample)
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return tuple(Unread(name=f"field {name!r} of .json", like=like(name), count=count) for name, count in ranked)


def unread_members(suffixes: Iterable[str], is_read: Callable[[str], bool]) -> tuple[Unread, ...]:
    """Return the kinds of member of tars that are not read, most frequent first."""
    counts = Counter(suffix.lower() for suffix in suffixes if not is_read(suffix.lower()))
    return tuple(
        Unread(name=f".{suffix} members", like=like(suffix), count=count)
        for suffix, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    )
