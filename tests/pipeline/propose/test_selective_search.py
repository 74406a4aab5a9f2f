import subprocess
import sys
from importlib import resources

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.propose.selective_search import MissingContribError, SelectiveSearch, SelectiveSearchConfig
from schemas.boxes import as_boxes, iou

PROPOSER = SelectiveSearch(SelectiveSearchConfig())
IN_ANOTHER_PROCESS = """
import sys
import numpy as np
from types import SimpleNamespace
from pipeline.propose.selective_search import SelectiveSearch, SelectiveSearchConfig

pixels = np.load(sys.stdin.buffer)
proposals = SelectiveSearch(SelectiveSearchConfig()).propose([SimpleNamespace(pixels=pixels)])[0]
sys.stdout.write((proposals.boxes.tobytes() + proposals.scores.tobytes()).hex())
"""


def as_bytes(proposals):
    return proposals.boxes.tobytes() + proposals.scores.tobytes()


@pytest.fixture(scope="module")
def coffee():
    with resources.files("pipeline").joinpath("golden/photographs/coffee.jpg").open("rb") as file:
        return np.asarray(Image.open(file).convert("RGB").resize((180, 120)))


@pytest.mark.parametrize(
    ("width", "height", "box"),
    [
        (201, 133, (37, 29, 118, 95)),
        (97, 307, (20, 110, 71, 260)),  # portrait
        (997, 331, (610, 50, 800, 270)),  # reduced
        (1600, 200, (500, 40, 800, 170)),  # panorama, reduced to 40 rows
        (33, 41, (8, 10, 24, 30)),
    ],
)
def test_a_bright_rectangle_is_found_in_the_frame_of_the_image(make_image, rectangle, width, height, box):
    proposals = PROPOSER.propose([make_image(rectangle(width, height, box))])[0]
    overlaps = iou(as_boxes([box]), proposals.boxes)[0]
    assert overlaps.max() > 0.8
    assert overlaps[0] > 0.6, "the best score is the rectangle's"
    assert (proposals.boxes >= 0).all()
    assert (proposals.boxes <= np.array([width, height, width, height])).all()


def test_edges_of_the_reduced_image_are_edges_of_the_image(make_image, rectangle):
    width, height = 1001, 667  # 320 x 213 at working size: neither side divides
    proposals = PROPOSER.propose([make_image(rectangle(width, height, (600, 400, width, height)))])[0]
    best = proposals.boxes[iou(as_boxes([[600, 400, width, height]]), proposals.boxes)[0].argmax()]
    assert best[2:].tolist() == [width, height]


def test_working_size_does_not_enlarge(make_image, rectangle):
    boxes = PROPOSER.propose([make_image(rectangle(64, 48, (20, 10, 44, 30)))])[0].boxes
    np.testing.assert_array_equal(boxes, boxes.round())


def test_calls_constructions_and_batch_mates_change_nothing(make_image, coffee, rectangle):
    image, mate = make_image(coffee), make_image(rectangle(50, 50, (10, 10, 30, 30)))
    expected = as_bytes(PROPOSER.propose([image])[0])
    assert as_bytes(PROPOSER.propose([mate, image, mate])[1]) == expected
    assert as_bytes(SelectiveSearch(SelectiveSearchConfig()).propose([image])[0]) == expected


def test_opencv_threads_change_nothing(make_image, coffee):
    expected, threads = as_bytes(PROPOSER.propose([make_image(coffee)])[0]), cv2.getNumThreads()
    try:
        for num_threads in (1, 2, 4):
            cv2.setNumThreads(num_threads)
            assert as_bytes(PROPOSER.propose([make_image(coffee)])[0]) == expected
    finally:
        cv2.setNumThreads(threads)


def test_another_process_gives_the_same(make_image, coffee, tmp_path):
    with (tmp_path / "pixels.npy").open("wb") as file:
        np.save(file, coffee)
    with (tmp_path / "pixels.npy").open("rb") as file:
        run = subprocess.run([sys.executable, "-c", IN_ANOTHER_PROCESS], stdin=file, capture_output=True, check=True)
    assert bytes.fromhex(run.stdout.decode()) == as_bytes(PROPOSER.propose([make_image(coffee)])[0])


def test_proposals_fall_in_score_and_are_at_most_as_many_as_asked(make_image, coffee):
    few = SelectiveSearch(SelectiveSearchConfig(max_proposals=7)).propose([make_image(coffee)])[0]
    many = PROPOSER.propose([make_image(coffee)])[0]
    assert len(few.boxes) == len(few.scores) == len(few.labels) == 7
    assert 7 < len(many.boxes) <= 100
    assert (np.diff(many.scores) <= 0).all()
    assert ((many.scores >= 0) & (many.scores <= 1)).all()
    np.testing.assert_array_equal(many.boxes[:7], few.boxes)
    assert len(np.unique(many.boxes, axis=0)) == len(many.boxes)


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (3, 3), (3, 900), (40, 40)])
def test_images_of_a_few_pixels_or_one_colour_have_no_proposals(make_image, shape):
    proposals = PROPOSER.propose([make_image(np.full((*shape, 3), 90, dtype=np.uint8))])[0]
    assert proposals.boxes.shape == (0, 4)
    assert proposals.labels == ()


@pytest.mark.parametrize("shape", [(4, 4), (4, 90), (5, 7), (64, 4)])
def test_the_smallest_images_searched_do_not_fail(make_image, shape):
    pixels = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    boxes = PROPOSER.propose([make_image(pixels)])[0].boxes
    assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_an_opencv_without_contrib_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.delattr(cv2, "ximgproc")
    with pytest.raises(MissingContribError, match=r"pip uninstall .* && pip install --force-reinstall opencv-contrib"):
        SelectiveSearch(SelectiveSearchConfig())


@pytest.mark.parametrize("settings", [{"working_side": 3}, {"max_proposals": 0}])
def test_settings_are_checked(settings):
    with pytest.raises(ValueError, match=f"--propose.{next(iter(settings)).replace('_', '-')} is"):
        SelectiveSearchConfig(**settings)
