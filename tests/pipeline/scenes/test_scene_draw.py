"""Scenes: the truth agrees with the pixels, held-out pairs stay out, and a version means one thing."""

import hashlib
import json
from collections import Counter

import numpy as np
import pytest

from pipeline.scenes.draw import draw_scene
from pipeline.scenes.words import COLOURS, EXTENTS_PX, HELD_OUT, SHAPES, SIZES, TEXTURES, pairs
from schemas.boxes import iou

SCENES = [draw_scene(0, split, index) for split in ("train", "test") for index in range(150)]


def test_boxes_are_tight_around_the_masks():
    for scene in SCENES[:40]:
        assert scene.masks.shape == (len(scene.boxes), 256, 256)
        for mask, (x0, y0, x1, y1) in zip(scene.masks, scene.boxes.astype(int), strict=True):
            inside = mask[y0:y1, x0:x1]
            assert inside.sum() == mask.sum() > 0
            assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()


def test_masks_do_not_overlap():
    assert all(scene.masks.sum(axis=0).max() == 1 for scene in SCENES)


def test_pixels_of_a_mask_are_of_its_colour():
    solid = [(s, i) for s in SCENES for i, a in enumerate(s.attributes) if a.texture == "solid"]
    for scene, i in solid:
        mean = scene.pixels[scene.masks[i]].mean(axis=0)
        distances = {name: np.abs(mean - rgb).sum() for name, rgb in COLOURS.items()}
        assert min(distances, key=distances.get) == scene.attributes[i].colour


def test_sizes_can_be_told_from_the_boxes():
    extents = {size: [] for size in SIZES}
    for scene in SCENES:
        for box, truth in zip(scene.boxes, scene.attributes, strict=True):
            extents[truth.size].append(float(max(box[2:] - box[:2])))
    for size, (least, most) in EXTENTS_PX.items():
        assert 0.85 * least - 1 <= min(extents[size]) and max(extents[size]) <= most + 2
    assert max(extents["small"]) < min(extents["medium"]) and max(extents["medium"]) < min(extents["large"])


def test_some_objects_hide_parts_of_others():
    """Boxes overlap where objects touch or hide each other; in other scenes all are apart."""
    overlapping = sum(bool(np.triu(iou(scene.boxes, scene.boxes), 1).any()) for scene in SCENES)
    assert 0.1 < overlapping / len(SCENES) < 0.6


def test_everything_occurs_and_held_out_pairs_only_in_test():
    train = Counter((a.shape, a.colour) for i in range(600) for a in draw_scene(1, "train", i).attributes)
    test = Counter((a.shape, a.colour) for i in range(600) for a in draw_scene(1, "test", i).attributes)
    assert len(HELD_OUT) == len(SHAPES)
    assert not HELD_OUT & train.keys()
    assert test.keys() >= HELD_OUT
    assert train.keys() == set(pairs("train"))
    assert {a.texture for s in SCENES for a in s.attributes} == set(TEXTURES)


def test_splits_seeds_and_indices_differ():
    drawn = [draw_scene(*which).pixels.tobytes() for which in ((0, "train", 0), (0, "test", 0), (1, "train", 0))]
    drawn.append(draw_scene(0, "train", 1).pixels.tobytes())
    assert len(set(drawn)) == len(drawn)


def test_unknown_split_is_refused():
    with pytest.raises(ValueError, match="'val' is not one of train, test"):
        draw_scene(0, "val", 0)


def test_the_caption_counts_the_objects():
    counts = {"a": 1, "two": 2, "three": 3}
    for scene in SCENES:
        listed = scene.caption.split(";")[0].replace(",", " ").split()
        assert sum(counts.get(word, 0) for word in listed) == len(scene.boxes)


def test_the_relation_holds():
    sides = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}
    num_checked = 0
    for scene in SCENES:
        relation = next((name for name in sides if name in scene.caption), None)
        if relation is None:
            continue
        first, second = (
            part.split(" is ")[0].split(" are ")[0] for part in scene.caption.split(";")[1].split(relation)
        )
        axis, sign = sides[relation]
        centres = {
            side: [
                (b[axis] + b[axis + 2]) / 2
                for b, a in zip(scene.boxes, scene.attributes, strict=True)
                if named(a, text)
            ]
            for side, text in (("first", first), ("second", second))
        }
        assert min(sign * c for c in centres["first"]) > max(sign * c for c in centres["second"])
        num_checked += 1
    assert num_checked > 150


def named(attributes, text: str) -> bool:
    return f"{attributes.colour} {attributes.shape}" in text


def test_the_version_pins_what_scenes_show():
    """A change of this digest is a change of the generator: raise `layout.VERSION`, and train the minis again."""
    shown = [[scene.caption, scene.captions, scene.boxes.tolist()] for scene in SCENES]
    assert hashlib.sha256(json.dumps(shown).encode()).hexdigest()[:16] == "6fed8bb4cfead25a"
