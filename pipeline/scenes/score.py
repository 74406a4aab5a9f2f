"""`fineclip score`: a data set of scenes against the truth that its keys name.

Boxes: recall at IoU 0.5 and boxes per object. Captions: the share that name shape, colour and size right, among regions
whose box matches an object.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline.scenes.draw import Scene, draw_scene
from pipeline.scenes.scoring import BoxFigures, match, score_boxes, score_captions
from pipeline.scenes.words import CLASS_LISTS, Attributes, Split, parse_region_caption
from schemas.boxes import Boxes, as_boxes
from schemas.dataset import Dataset, DatasetError
from schemas.plain_flags import PlainParser

_KEY = re.compile(
    r"(?:.*-)?scene-(?:(?P<classes>"
    + "|".join(CLASS_LISTS)
    + r")-)?(?P<split>train|test)-s(?P<seed>\d+)-(?P<index>\d{8})"
)
_FEW = (4, 10)
"""How many boxes of an image count, where proposers are compared by their first boxes."""
_DESCRIPTION = "Compare a data set made from scenes:N with the truth: recall of its boxes, and captions right on them."


@dataclass(frozen=True, kw_only=True)
class SceneFigures:
    """How well a data set of scenes agrees with the truth."""

    num_scenes: int
    boxes: BoxFigures
    recall_at: dict[int, float]
    """Recall by how many boxes of an image count, in the order of its regions: by score."""
    captions: dict[str, float]
    """Share right by aspect, among `num_captions`; empty where there are none."""
    num_captions: int
    """Captions of regions that match an object at IoU 0.5."""
    num_foreign: int
    """Those of them that are no sentence of the scenes' grammar, and so count as wrong."""

    def as_json(self) -> dict[str, Any]:
        """Return what `--out` writes."""
        recalls = {f"recall@{k}": recall for k, recall in self.recall_at.items()}
        boxes = {"recall": self.boxes.recall, **recalls, "boxes_per_object": self.boxes.boxes_per_object}
        boxes["boxes_per_image"] = self.boxes.num_boxes / max(self.num_scenes, 1)
        captions = {f"{aspect}_right": share for aspect, share in self.captions.items()}
        counts = {"num_captions": self.num_captions, "num_foreign": self.num_foreign}
        return {"num_scenes": self.num_scenes, "boxes": boxes, "captions": captions | counts}


def score(dataset: Dataset) -> SceneFigures:
    """Compare the regions of a data set with its scenes. Raises DatasetError where a key names no scene."""
    truths: list[Boxes] = []
    found: list[Boxes] = []
    captions: list[str] = []
    attributes: list[Attributes] = []
    records = (sample.record for shard in dataset.shards for sample in dataset.samples(shard))
    for record in records:
        scene = scene_of_key(record.key)
        boxes = as_boxes([region.box for region in record.regions])
        truths.append(scene.boxes)
        found.append(boxes)
        for true, ours in match(scene.boxes, boxes):
            captions.append(record.regions[ours].caption)
            attributes.append(scene.attributes[true])
    return SceneFigures(
        num_scenes=len(truths),
        boxes=score_boxes(truths, found),
        recall_at={k: score_boxes(truths, [boxes[:k] for boxes in found]).recall for k in _FEW},
        captions=score_captions(captions, attributes) if captions else {},
        num_captions=len(captions),
        num_foreign=sum(parse_region_caption(caption) is None for caption in captions),
    )


def scene_of_key(key: str) -> Scene:
    """Draw the scene that a sample's key names, with its truth. Raises DatasetError for any other key."""
    named = _KEY.fullmatch(key)
    if named is None:
        raise DatasetError(f"key {key!r} names no scene: only data sets made from scenes:N have a known truth")
    split: Split = "train" if named["split"] == "train" else "test"
    return draw_scene(int(named["seed"]), split, int(named["index"]), named["classes"])


def main(arguments: Sequence[str]) -> int:
    """Run `fineclip score DATA` and return its exit code. Raises errors that carry theirs."""
    parser = PlainParser("fineclip score", _DESCRIPTION)
    parser.add_argument("data", metavar="DATA", help="a data set made from scenes:N: a folder, or a URL")
    parser.add_repeated("--overlay", "NAME", "overlay whose captions are scored")
    parser.add_repeated("--filter", "FILE", "filter list of what to leave out")
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON file to write the figures to as well")
    options = parser.parse_args(arguments)
    figures = score(Dataset.open(options.data, overlays=options.overlay, filters=options.filter))
    _print(Console(emoji=False), figures)
    if options.out is not None:
        options.out.write_text(json.dumps(figures.as_json(), indent=2) + "\n", encoding="utf-8")
    return 0


def _print(console: Console, figures: SceneFigures) -> None:
    table = Table("against the truth of the scenes", "", box=None, pad_edge=False)
    table.columns[1].justify = "right"
    table.add_row("scenes", f"{figures.num_scenes:,}")
    table.add_row("objects", f"{figures.boxes.num_objects:,}")
    table.add_row("recall at IoU 0.5", f"{figures.boxes.recall:.3f}")
    table.add_row("boxes per object", f"{figures.boxes.boxes_per_object:.2f}")
    table.add_row("captions on matched boxes", f"{figures.num_captions:,}")
    for aspect, label in (
        ("shape", "shape"),
        ("colour", "colour"),
        ("size", "size"),
        ("shape_colour_size", "all three"),
    ):
        if figures.captions:
            table.add_row(f"  right in {label}", f"{figures.captions[aspect]:.3f}")
    console.print(table)
    if figures.num_foreign:
        console.print(
            f"{figures.num_foreign:,} captions are in other words than the scenes' own (a large red solid star), and "
            "count as wrong: whether they are true is not known.",
            style="yellow",
            highlight=False,
        )
