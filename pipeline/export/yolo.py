"""`yolo`: images, a text file of boxes beside each, and the data.yaml that Ultralytics and its like read.

    data.yaml
    images/train/KEY.jpg
    labels/train/KEY.txt     a line per region: label's number, centre x and y, width, height, in shares of the image

Its labels are all that a detector learns: captions, scores and masks have no place here. An image without regions has
an empty file, which says that nothing is to be found.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from pipeline.export.join import Join
from pipeline.export.part import Part
from schemas.dataset import Sample
from schemas.names import TRAIN, VAL
from schemas.records import ImageRecord, Region

CROWDS = "regions that are crowds"
_NOT_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


@dataclass(frozen=True)
class Yolo:
    """Shares have 9 decimals: 1/16 pixel of any image that a JPEG can hold."""

    def write(self, part: Part, samples: Iterator[Sample]) -> None:
        """Write a shard's images and labels."""
        split = part.shard.split
        for sample in samples:
            part.add_image(sample, f"images/{split}")
            regions = [region for region in sample.record.regions if not region.is_crowd]
            lines = [_line(part.survey.label_number(region.label), region, sample.record) for region in regions]
            part.write_bytes(f"labels/{split}/{sample.key}.txt", "".join(lines).encode("ascii"))
            part.counts.images += 1
            part.counts.regions += len(regions)
            part.counts.leave_out(CROWDS, sample.record.num_regions - len(regions))

    def join(self, join: Join) -> None:
        """Write data.yaml."""
        folders = {name: name if name in join.splits else join.splits[0] for name in (TRAIN, VAL)}
        lines = [f"{name}: images/{folder}\n" for name, folder in folders.items()]
        if len(join.splits) == 1:
            lines.insert(0, f"# the data set has no other split than {join.splits[0]}: both are the same images\n")
        names = [f"  {n}: {_quoted(label)}\n" for n, label in enumerate(join.survey.labels)]
        join.write(
            "data.yaml", iter(line.encode() for line in [*lines, "names:\n" if names else "names: {}\n", *names])
        )


def _quoted(label: str) -> str:
    """Return a label as YAML: JSON's string, but for characters that YAML refuses or takes for the end of a line."""
    return _NOT_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", msgspec.json.encode(label).decode())


def _line(number: int, region: Region, record: ImageRecord) -> str:
    x0, y0, x1, y1 = region.box
    width, height = record.width, record.height
    shares = ((x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height)
    return f"{number} {' '.join(f'{share:.9f}' for share in shares)}\n"
