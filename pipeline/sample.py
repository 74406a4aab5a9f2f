"""All that flows through a unit of work, in the order in which the steps make it.

    SourceItem -> DecodedImage -> Proposals -> Candidate -> Crop -> Caption -> RegionCaption

`Sample` is one image on its way, and holds what each step has found out about it. What cannot go on becomes a `Drop`:
a value that travels to the table's rows, instead of an exception that stops a shard.
"""

import traceback
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np
import numpy.typing as npt

from schemas.boxes import Boxes
from schemas.hashes import sha256
from schemas.reasons import Reason, Stage

Pixels = npt.NDArray[np.uint8]
"""`[H, W, 3]` uint8 RGB."""


@dataclass(frozen=True, kw_only=True)
class Drop:
    """Why one image or region did not make it: by a failure, or by a rule of ours; `reason` tells which."""

    reason: Reason
    stage: Stage
    message: str
    traceback_hash: str | None = None
    """16 hex digits of the error's type and the code lines it passed: equal for failures of the same origin."""


def drop_of(error: BaseException, reason: Reason, stage: Stage) -> Drop:
    """Return the drop that stands for `error`: its first line as message, its origin as traceback hash."""
    frames = [f"{frame.name}:{frame.line}" for frame in traceback.extract_tb(error.__traceback__)]
    origin = "\n".join([type(error).__name__, *frames])
    text = str(error).strip().split("\n")[0][:500]
    message = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return Drop(reason=reason, stage=stage, message=message, traceback_hash=sha256(origin.encode())[:16])


class GivenRegion(msgspec.Struct, frozen=True, kw_only=True):
    """A region that the source brings with it (the `manual` proposals)."""

    box: tuple[float, float, float, float]
    """xyxy in pixels of the source image (see `SourceItem.given_size`); may hold NaN or lie outside, as given."""
    label: str | None = None
    score: float | None = None
    caption: str | None = None
    id: str | None = None
    """Its id in the source: what a filter list calls it by, and `source_id` in what is stored."""
    is_crowd: bool | None = None
    """Whether the source says that the box is of a group; such a region is filtered."""
    mask_rle: str | None = None
    """Its mask in the frame of the box, as the `counts` of COCO's compressed run lengths."""
    problem: str | None = None
    """Why what the source says of it cannot be used; such a region is dead, and its box may be anything."""
    excluded: bool = False
    """Whether a filter list takes it away (`pipeline.read.read` finds out)."""


@dataclass(frozen=True, kw_only=True)
class SourceItem:
    """One sample of a source, not decoded yet, or the drop that stands in its place."""

    key: str
    index: int
    """Position in its file or list, from 0."""
    uri: str
    """The image's file or member, relative to the INPUT's root."""
    data: bytes | None
    """The image file's bytes; None when `drop` says why."""
    captions: tuple[str, ...] = ()
    """All that the source gives for the image, the one to use first (`pipeline.read.captions`)."""
    url: str | None = None
    license: str | None = None
    note: str | None = None
    """What was mended or left out in what the source says, for the message of the image's row."""
    given: tuple[GivenRegion, ...] = ()
    given_size: tuple[int, int] | None = None
    """(width, height) that the annotation states; `given` boxes are in that frame. None: in the decoded image's."""
    given_in_shares: bool = False
    """Whether `given` boxes are shares of the decoded image's width and height, in [0, 1], as YOLO writes them."""
    drop: Drop | None = None
    bytes_lost: int = 0
    """Bytes of the source that could not be read: what this item's drop stands for, beside the item itself."""

    @property
    def caption(self) -> str | None:
        """The first caption, or None."""
        return self.captions[0] if self.captions else None


@dataclass(frozen=True, kw_only=True)
class DecodedImage:
    """An image whose pixels, bytes to store and given regions are in one frame: the stored image's."""

    item: SourceItem
    width: int
    """Pixels of the stored image."""
    height: int
    """Pixels of the stored image."""
    pixels: Pixels
    """`[height, width, 3]` uint8 RGB, upright; empty once `released`."""
    stored: bytes
    """The bytes that go into the shard: the source's own unless `reencoded` (mended files are, too)."""
    suffix: str
    """Of the stored bytes: `jpg`, `png` or `webp`."""
    reencoded: bool
    sha256: str
    """Of the stored bytes."""
    given: tuple[GivenRegion, ...]
    """The source's regions, moved to the stored image's frame."""

    @property
    def key(self) -> str:
        """The sample's key."""
        return self.item.key

    def released(self) -> "DecodedImage":
        """Return the image without its pixels, as it waits for its captions once its crops are cut."""
        return replace(self, pixels=np.zeros((0, 0, 3), np.uint8))


@dataclass(frozen=True, kw_only=True)
class Proposals:
    """The boxes a proposer found in one image, in that image's frame (its stored pixels)."""

    boxes: Boxes
    """`[R, 4]` float32 xyxy pixels; `select` clips them and drops what is not a box, with a reason."""
    scores: npt.NDArray[np.float32]
    """`[R]` in [0, 1]; 1 for given boxes without a score."""
    labels: tuple[str | None, ...]
    """`R` class names, None where the proposer has no classes."""
    masks: tuple[str | None, ...] | None = None
    """`R` masks of the whole image in COCO's compressed run lengths; None where none were asked for."""
    given: tuple[GivenRegion, ...] | None = None
    """`R` regions of the source that these are: filter lists, crowds and problems are told by them. None: they are
    the proposer's own."""

    def __post_init__(self) -> None:
        count = len(self.boxes)
        lengths = [len(column) for column in (self.labels, self.masks, self.given) if column is not None]
        shapes = (self.boxes.shape[1:], self.scores.shape, {*lengths})
        assert shapes == ((4,), (count,), {count}), shapes

    def first(self, count: int) -> "Proposals":
        """Return the first `count` of them."""
        return Proposals(
            boxes=self.boxes[:count],
            scores=self.scores[:count],
            labels=self.labels[:count],
            masks=self.masks and self.masks[:count],
            given=self.given and self.given[:count],
        )


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What became of one proposal, or (`count` above 1 or `box` None) of those that were not looked at."""

    region_id: str
    box: tuple[float, float, float, float] | None
    """xyxy in pixels of the stored image, clipped, multiples of 1/16; as proposed where it is invalid or outside; None
    for proposals not looked at."""
    proposal_score: float | None
    """In [0, 1], rounded to 1e-4; None where it is not finite, and for proposals not looked at."""
    label: str | None
    count: int
    """How many proposals this stands for."""
    drop: Drop | None
    """Why it is not a region; None for a region."""
    mask: str | None = None
    """As proposed: of the whole image, in COCO's compressed run lengths."""
    given: GivenRegion | None = None
    """The region of the source that was proposed."""


@dataclass(frozen=True, kw_only=True)
class Crop:
    """What a captioner sees of one region, and what is known of it."""

    region_id: str
    pixels: Pixels
    """`[h, w, 3]` uint8 RGB, at least 1 x 1."""
    box: tuple[float, float, float, float]
    """The region's box: xyxy pixels of the stored image (what is seen of it may be more: `--caption.view`)."""
    image_width: int
    image_height: int
    label: str | None
    given_caption: str | None = None
    """What the source says of the region, where it brought it."""


@dataclass(frozen=True, kw_only=True)
class Caption:
    """A sentence about a crop, as the model gave it."""

    text: str
    score: float | None
    """The captioner's own measure; its provenance says which. None where it has none."""
    unfinished: str | None = None
    """What cut the answer short before the model had ended it, in words; None where nothing did."""


@dataclass(frozen=True, kw_only=True)
class RegionCaption:
    """What the captioner made of a region: a text, or the drop that stands in its place."""

    text: str = ""
    score: float | None = None
    """Rounded to 1e-4."""
    drop: Drop | None = None


@dataclass(kw_only=True)
class Sample:
    """A source item and what became of it; each step of the flow fills in one field, or `drop`."""

    item: SourceItem
    """Without its bytes once it was decoded."""
    drop: Drop | None = None
    """Why the image is not ok; later steps pass such a sample on untouched."""
    image: DecodedImage | None = None
    proposals: Proposals | None = None
    """None until proposed, and where the proposer failed."""
    candidates: list[Candidate] = field(default_factory=list)
    """One a proposal (some stand for several), best first."""
    captions: dict[str, RegionCaption] = field(default_factory=dict)
    """By region id, for the candidates that became regions."""

    @property
    def key(self) -> str:
        """The sample's key."""
        return self.item.key

    @property
    def regions(self) -> list[Candidate]:
        """The candidates that became regions, captioned or to be captioned."""
        return [candidate for candidate in self.candidates if candidate.drop is None]
