"""`crops`: each region as an image-text sample in WebDataset tars, so that any CLIP trainer learns from regions.

    train-000000.tar     KEY-REGION.jpg  KEY-REGION.txt  KEY-REGION.json
    sizes.json           the number of samples of each tar, which open_clip looks for

A shard becomes a tar. A crop is what the captioner saw by default: the pixels that the box touches. `--crop-scale`
takes more of the surroundings. The JSON has the key, the region's id, its box in the whole image, label and scores.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

import msgspec
from PIL import Image

from pipeline.caption.crop import window
from pipeline.export.join import Join
from pipeline.export.part import Part, finished
from schemas.dataset import Sample
from schemas.folder import DatasetError
from schemas.names import SIZES_JSON
from schemas.records import Region
from schemas.tar import END, padding, tar_member_header

_QUALITY = 95


@dataclass(frozen=True)
class Crops:
    """JPEGs of quality 95."""

    scale: float = 1.0
    """How many times a box is enlarged about its centre before it is cut out."""

    def write(self, part: Part, samples: Iterator[Sample]) -> None:
        """Write a shard's crops as a tar."""
        tar = part.open(part.shard.tar)
        for sample in samples:
            part.counts.images += 1
            pixels = _decode(sample) if sample.record.regions else None
            for region in sample.record.regions:
                assert pixels is not None
                for suffix, data in self._members(sample, region, pixels).items():
                    header = tar_member_header(f"{sample.key}-{region.id}.{suffix}", len(data))
                    tar.write(header + data + bytes(padding(len(data))))
                part.counts.regions += 1
        tar.write(END)

    def _members(self, sample: Sample, region: Region, pixels: Image.Image) -> dict[str, bytes]:
        cut = window(region.box, width=pixels.width, height=pixels.height, scale=self.scale)
        file = BytesIO()
        pixels.crop(cut).save(file, "JPEG", quality=_QUALITY, subsampling=0)
        kept = ("box", "label", "proposer", "proposal_score", "captioner", "caption_score", "source_id")
        said = {name: getattr(region, name) for name in kept}
        facts = {"key": sample.key, "region_id": region.id, "image_sha256": sample.record.image_sha256, **said}
        text = region.caption.encode("utf-8", "surrogatepass")
        return {"jpg": file.getvalue(), "txt": text, "json": msgspec.json.encode(facts)}

    def join(self, join: Join) -> None:
        """Write how many samples each tar has."""
        counts = {shard.tar: finished(join.out, shard) for shard in join.shards}
        join.write_json(SIZES_JSON, {name: count.regions for name, count in counts.items() if count is not None})


def _decode(sample: Sample) -> Image.Image:
    """Return the stored image as RGB. Raises DatasetError where it cannot be decoded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(BytesIO(sample.image)).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DatasetError(
            f"key {sample.key!r}: its image cannot be decoded ({error}); write the shard again"
        ) from error
