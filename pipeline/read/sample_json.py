"""The `.json` member of a WebDataset sample: img2dataset's, or the ImageRecord of a shard of ours."""

import json
from typing import Any

import msgspec

from pipeline.read.items import SampleError, stated_size
from pipeline.sample import GivenRegion
from schemas.reasons import Reason


class JsonRegion(msgspec.Struct, frozen=True, kw_only=True):
    """A region as an ImageRecord writes it; other fields are ignored."""

    box: tuple[float, float, float, float]
    """xyxy in pixels of the size that the record states."""
    id: Any = None
    """A string in records of ours; others number their regions, which is no id that a filter list could name."""
    label: str | None = None
    proposal_score: float | None = None
    caption: str | None = None
    is_crowd: bool | None = None
    mask_rle: str | None = None


class JsonOrigin(msgspec.Struct, frozen=True, kw_only=True):
    """Where an ImageRecord says its image came from."""

    url: str | None = None
    license: str | int | None = None


class SampleJson(msgspec.Struct, frozen=True, kw_only=True):
    """What is read of a sample's `.json`; other fields are ignored."""

    caption: str | None = None
    image_caption: str | None = None
    url: str | None = None
    license: str | int | None = None
    width: float | None = None
    height: float | None = None
    source: JsonOrigin | None = None
    regions: tuple[JsonRegion, ...] | None = None

    @property
    def given(self) -> tuple[GivenRegion, ...]:
        """The regions, in the frame of `given_size`."""
        return tuple(
            GivenRegion(
                box=region.box,
                label=region.label,
                score=region.proposal_score,
                caption=region.caption,
                is_crowd=region.is_crowd,
                mask_rle=region.mask_rle,
                id=region.id if isinstance(region.id, str) else None,
            )
            for region in self.regions or ()
        )

    @property
    def given_size(self) -> tuple[int, int] | None:
        """The (width, height) of the regions' frame, where there are regions and both are stated."""
        return stated_size(self.width, self.height) if self.regions else None

    @property
    def origin(self) -> JsonOrigin:
        """The address and licence of the image, from the record's top level or its `source`."""
        source = self.source or JsonOrigin()
        return JsonOrigin(url=self.url or source.url, license=self.license or source.license)


def decode_sample_json(data: bytes, name: str) -> SampleJson:
    """Decode the member called `name`. Raises SampleError, bad record, for JSON that is broken or not of this shape."""
    try:
        value: Any = json.loads(data)  # msgspec's decoder refuses NaN, which boxes may hold
        return msgspec.convert(value, SampleJson)
    except (ValueError, RecursionError) as error:
        raise SampleError(Reason.BAD_RECORD, f"{name}: {error}") from error
