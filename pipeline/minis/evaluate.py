"""Measures a mini on scenes of the `test` split, as a source hands them out: decoded from their JPEG bytes.

Figures come by name: shares rounded to 1e-4, and the counts behind them. Each mini is imported where it is measured, so
that none needs the libraries of another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pipeline.minis.batches import cut
from pipeline.read.scenes import encode
from pipeline.sample import DecodedImage, Pixels, Proposals, SourceItem
from pipeline.scenes.draw import Scene, draw_scene
from pipeline.scenes.scoring import score_boxes, score_captions
from pipeline.scenes.words import Attributes, every_region_caption

Figures = Mapping[str, float]

MIN_SCORE = 0.3
"""Of the detector's boxes, as the profile `mini` has it."""
INTERVAL, HELD_OUT_INTERVAL = 0.03, 0.10
"""How far from the stated figure one of a repeated training may lie: over all regions; over the held-out ones, of which
there are a tenth as many. Where the repeats lie that were made is in the cards."""


@dataclass(frozen=True, kw_only=True)
class Regions:
    """The true regions of some scenes."""

    crops: list[Pixels]
    """Cut tight, without context."""
    attributes: list[Attributes]


def fresh_scenes(count: int, *, seed: int = 0) -> list[Scene]:
    """Return the first `count` test scenes of a seed, their pixels as they come out of their JPEG bytes."""
    scenes = []
    for index in range(count):
        scene = draw_scene(seed, "test", index)
        bgr = cv2.imdecode(np.frombuffer(encode(scene), dtype=np.uint8), cv2.IMREAD_COLOR)
        scenes.append(replace(scene, pixels=cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)))
    return scenes


def true_regions(scenes: Sequence[Scene]) -> Regions:
    """Return the crops at the scenes' true boxes, with what they show."""
    return Regions(
        crops=[cut(scene.pixels, box) for scene in scenes for box in scene.boxes],
        attributes=[truth for scene in scenes for truth in scene.attributes],
    )


def measure_detector(folder: Path, scenes: Sequence[Scene]) -> Figures:
    """Return recall at IoU 0.5 and boxes per object, as the profile `mini` proposes, and recall of the best 4 and 10.

    Those are of whatever score: 4 is about what the paper keeps of an image, and no scene has more than 7 objects.
    """
    from pipeline.propose.detr import Detr, DetrConfig

    proposer = Detr(DetrConfig(model=str(folder), min_score=0))
    images = [_decoded(scene) for scene in scenes]
    firsts = range(0, len(images), proposer.batch_size)
    answers = [one for first in firsts for one in proposer.propose(images[first : first + proposer.batch_size])]
    found = [one for one in answers if isinstance(one, Proposals)]
    assert len(found) == len(images), "a detector that is asked nothing has proposals of every image"
    truth = [scene.boxes for scene in scenes]
    proposed = score_boxes(truth, [one.boxes[one.scores >= MIN_SCORE] for one in found])
    best = {f"recall_at_{k}_boxes": score_boxes(truth, [one.boxes[:k] for one in found]).recall for k in (4, 10)}
    return {
        "recall_at_iou_0.5": round(proposed.recall, 4),
        "boxes_per_object": round(proposed.boxes_per_object, 4),
        **{name: round(recall, 4) for name, recall in best.items()},
        "num_scenes": len(scenes),
        "num_objects": proposed.num_objects,
    }


def _decoded(scene: Scene) -> DecodedImage:
    """Return a scene as proposers take it; what they do not read is empty."""
    item = SourceItem(key="scene", index=0, uri="scene", data=None)
    sides = {"width": scene.pixels.shape[1], "height": scene.pixels.shape[0]}
    rest: dict[str, Any] = {"stored": b"", "suffix": "jpg", "reencoded": False, "sha256": "", "given": ()}
    return DecodedImage(item=item, pixels=scene.pixels, **sides, **rest)


def measure_captioner(folder: Path, scenes: Sequence[Scene]) -> Figures:
    """Return the shares of captions right on the true boxes, by aspect: over all, and for held-out pairs alone."""
    from pipeline.minis import captioner

    regions = true_regions(scenes)
    captions = captioner.caption(*captioner.load(folder), regions.crops)
    return _by_pair(captions, regions.attributes) | {"num_scenes": len(scenes)}


def measure_clip(folder: Path, scenes: Sequence[Scene]) -> Figures:
    """Return top-1 over all captions of the grammar on the true boxes' crops, and image to caption recall@1.

    The latter finds each scene's caption among those of all `scenes`.
    """
    from pipeline.caption import clip

    loaded = clip.load(folder)
    regions, choices = true_regions(scenes), every_region_caption()
    logits = clip.encode_crops(loaded, regions.crops) @ clip.encode_captions(loaded, choices).T
    chosen = [choices[i] for i in logits.argmax(dim=1).tolist()]
    image_features = clip.encode_crops(loaded, [scene.pixels for scene in scenes])
    captions = [scene.caption for scene in scenes]
    best = (image_features @ clip.encode_captions(loaded, captions).T).argmax(dim=1).tolist()
    retrieved = sum(captions[i] == caption for i, caption in zip(best, captions, strict=True)) / len(captions)
    figures = _by_pair(chosen, regions.attributes)
    return figures | {"image_to_text_recall@1": round(retrieved, 4), "num_scenes": len(scenes)}


def _by_pair(captions: Sequence[str], attributes: Sequence[Attributes]) -> dict[str, float]:
    """Return the shares right over all regions, and apart for pairs seen in training and held out of it."""
    figures: dict[str, float] = {}
    for suffix, wanted in (("", (True, False)), ("_seen", (False,)), ("_held_out", (True,))):
        chosen = [i for i, truth in enumerate(attributes) if truth.held_out in wanted]
        shares = score_captions([captions[i] for i in chosen], [attributes[i] for i in chosen])
        figures |= {f"{aspect}{suffix}": round(share, 4) for aspect, share in shares.items()}
        figures[f"num_regions{suffix}"] = len(chosen)
    return figures


_MEASURES = {"detector": measure_detector, "captioner": measure_captioner, "clip": measure_clip}


def measure(name: str, folder: Path, scenes: Sequence[Scene]) -> Figures:
    """Return the figures of the mini `name` whose checkpoint lies in `folder`. Raises KeyError for an unknown name."""
    return _MEASURES[name](folder, scenes)


def outside_interval(figures: Figures, repeat: Figures) -> list[str]:
    """Return the figures of a repeated training that lie outside the stated interval; counts do not count."""
    limits = {name: HELD_OUT_INTERVAL if name.endswith("_held_out") else INTERVAL for name in figures}
    return [
        name
        for name, value in figures.items()
        if not name.startswith("num_") and abs(repeat[name] - value) > limits[name]
    ]
