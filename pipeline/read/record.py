"""What annotation files of single samples are read into, whatever their format: captions, regions, address, licence."""

from typing import Any

import msgspec

from pipeline.sample import GivenRegion

NOWHERE = (float("nan"), float("nan"), float("nan"), float("nan"))
"""The box of a region whose box cannot be read; its `problem` says why."""


class SampleRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a file of its own says of a sample: a `.json` (`sample_json`), YOLO's labels, VOC's XML."""

    captions: tuple[Any, ...] = ()
    """As written, the one that counts first; for a `CaptionReader`."""
    url: str | None = None
    license: str | None = None
    given: tuple[GivenRegion, ...] = ()
    """In the frame of `given_size`."""
    given_size: tuple[int, int] | None = None
    """(width, height) of the regions' frame, where there are regions and both are stated."""
    in_shares: bool = False
    """As `SourceItem.given_in_shares`."""
    has_regions: bool = False
    """Whether it has a list of regions, be it empty."""
    note: str | None = None
    """What was left out."""
