"""`grounding`: JSON lines of a conversation per image, whose answer holds the regions' captions and boxes as text.

    images/train/KEY.jpg
    train.jsonl     {"image": "images/train/KEY.jpg", "width": ..., "conversations": [...], "objects": {...}}

`--box-style` is how the model that learns from it says a box: `qwen` (Qwen-VL's marks, 0 to 1000), `florence`
(Florence-2's location tokens, 0 to 999), `llava` (shares of the image, three decimals). `objects` has the captions and
the boxes in pixels, xyxy, which lose nothing. Images without regions are left out, and counted.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pipeline.export.join import Join, write_line
from pipeline.export.part import Part
from schemas.dataset import Sample

_LINES = "lines.jsonl"
_QUESTION = "<image>\nDescribe the regions of the image, each with its box."
NO_REGIONS = "images without regions"


def _qwen(caption: str, shares: Sequence[float]) -> str:
    x0, y0, x1, y1 = (round(share * 1000) for share in shares)
    return f"<|object_ref_start|>{caption}<|object_ref_end|><|box_start|>({x0},{y0}),({x1},{y1})<|box_end|>"


def _florence(caption: str, shares: Sequence[float]) -> str:
    bins = (min(int(share * 1000), 999) for share in shares)
    return caption + "".join(f"<loc_{position}>" for position in bins)


def _llava(caption: str, shares: Sequence[float]) -> str:
    return f"{caption} [{', '.join(f'{share:.3f}' for share in shares)}]"


_STYLES: dict[str, tuple[Callable[[str, Sequence[float]], str], str]] = {
    "qwen": (_qwen, "\n"),
    "florence": (_florence, ""),
    "llava": (_llava, "\n"),
}
"""How a region is said, and what stands between two."""
BOX_STYLES = tuple(_STYLES)


@dataclass(frozen=True)
class Grounding:
    """A line per image."""

    box_style: str = "qwen"
    """One of `BOX_STYLES`."""

    def write(self, part: Part, samples: Iterator[Sample]) -> None:
        """Write a shard's images and lines."""
        lines, folder = part.open_lines(_LINES), f"images/{part.shard.split}"
        for sample in samples:
            record = sample.record
            if not record.regions:
                part.counts.leave_out(NO_REGIONS)
                continue
            name = part.add_image(sample, folder)
            turns = [{"from": "human", "value": _QUESTION}, {"from": "gpt", "value": self._answer(sample)}]
            captions, boxes = [region.caption for region in record.regions], [region.box for region in record.regions]
            said = {"id": sample.key, "image": f"{folder}/{name}", "width": record.width, "height": record.height}
            write_line(lines, {**said, "conversations": turns, "objects": {"ref": captions, "bbox": boxes}})
            part.counts.images += 1
            part.counts.regions += record.num_regions

    def _answer(self, sample: Sample) -> str:
        say, between = _STYLES[self.box_style]
        size = (sample.record.width, sample.record.height) * 2
        answers = []
        for region in sample.record.regions:
            shares = [corner / side for corner, side in zip(region.box, size, strict=True)]
            answers.append(say(region.caption, shares))
        return between.join(answers)

    def join(self, join: Join) -> None:
        """Write a file of lines for each split."""
        for split in join.splits:
            join.write(f"{split}.jsonl", (line + b"\n" for line in join.lines(split, _LINES)))
