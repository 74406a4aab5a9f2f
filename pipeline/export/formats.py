"""The formats by name."""

from collections.abc import Iterator
from typing import Protocol

from pipeline.export.coco import Coco
from pipeline.export.crops import Crops
from pipeline.export.grounding import Grounding
from pipeline.export.hf import Hf
from pipeline.export.join import Join
from pipeline.export.official import Official
from pipeline.export.part import Part
from pipeline.export.yolo import Yolo
from schemas.dataset import Sample


class Format(Protocol):
    """A frozen dataclass, whose fields are its options."""

    def write(self, part: Part, samples: Iterator[Sample]) -> None:
        """Write what a shard becomes, and count it in `part.counts`. Never look at other shards."""

    def join(self, join: Join) -> None:
        """Write the files that all parts have in common. It may be done again."""


FORMATS: dict[str, type[Format]] = {
    "official": Official,
    "coco": Coco,
    "yolo": Yolo,
    "crops": Crops,
    "hf": Hf,
    "grounding": Grounding,
}
