import numpy as np
import pytest

from pipeline.minis.batches import crops_of_step, cut, loosened, scenes_of_step
from pipeline.scenes.words import HELD_OUT


def test_steps_share_no_scene():
    captions = [[scene.pixels.tobytes() for scene in scenes_of_step(0, step, 3)] for step in (0, 1, 2)]
    assert len({pixels for step in captions for pixels in step}) == 9


def test_a_step_is_the_same_again_and_holds_no_held_out_pair():
    first, again = (crops_of_step(4, 2, 30) for _ in range(2))
    assert len(first) == 30
    assert all(np.array_equal(a.pixels, b.pixels) and a.caption == b.caption for a, b in zip(first, again, strict=True))
    assert all(example.mask.shape == example.pixels.shape[:2] and example.mask.any() for example in first)
    assert not {(example.attributes.shape, example.attributes.colour) for example in first} & HELD_OUT


@pytest.mark.parametrize(
    ("box", "shape"),
    [((2.2, 3.0, 5.0, 7.6), (5, 3)), ((-4, -4, 2, 2), (2, 2)), ((9.9, 9.9, 30, 30), (1, 1)), ((4, 4, 4, 4), (1, 1))],
)
def test_cut_takes_the_touched_pixels(box, shape):
    assert cut(np.zeros((10, 10, 3), np.uint8), np.array(box, np.float32)).shape[:2] == shape


def test_loosened_boxes_keep_most_of_the_box():
    rng = np.random.default_rng(0)
    boxes = np.array([loosened(np.array([100, 100, 200, 200], np.float32), rng) for _ in range(200)])
    assert (boxes[:, :2] >= 88).all() and (boxes[:, :2] <= 104).all()
    assert (boxes[:, 2:] >= 196).all() and (boxes[:, 2:] <= 212).all()
