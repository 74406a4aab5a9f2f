"""Boxes and masks drawn on an image."""

import numpy as np

from schemas.boxes import as_boxes
from trainer.evaluate.annotated import draw_boxes, draw_masks
from trainer.evaluate.figure import COLOURS, colour_of

GREY = np.full((80, 120, 3), 128, dtype=np.uint8)


def test_a_box_has_its_classes_colour_on_its_edge_and_nothing_inside():
    picture = np.asarray(draw_boxes(GREY, as_boxes([[40, 30, 100, 70]]), [1], ["dog 0.50"]))
    assert tuple(picture[50, 40]) == COLOURS[1] and tuple(picture[69, 80]) == COLOURS[1]
    assert tuple(picture[50, 70]) == (128, 128, 128)
    assert (picture[:30] != 128).any(), "the label stands above the box"
    assert (GREY == 128).all()


def test_without_boxes_the_picture_stays():
    assert (np.asarray(draw_boxes(GREY, as_boxes([]), [], [])) == GREY).all()


def test_a_label_of_a_box_at_the_top_is_inside_the_picture():
    picture = np.asarray(draw_boxes(GREY, as_boxes([[110, 0, 120, 20]]), [0], ["a long name"]))
    assert picture.shape == GREY.shape
    assert (picture[:10, :60] == COLOURS[0]).all(axis=2).any()


def test_masks_are_painted_by_class_and_named_below():
    classes = np.full((80, 120), -1)
    classes[:40, :60] = 1
    picture = np.asarray(draw_masks(GREY, classes, ["dog", "cat"]))
    assert picture.shape[0] > 80 and picture.shape[1] == 120
    assert (picture[60, 100] == 128).all()
    assert np.abs(picture[10, 10].astype(int) - (128 * 0.45 + np.array(COLOURS[1]) * 0.55)).max() <= 1
    assert (picture[80:] == COLOURS[1]).all(axis=2).any() and not (picture[80:] == COLOURS[0]).all(axis=2).any()


def test_eighty_names_have_eighty_colours():
    assert len({colour_of(kind) for kind in range(80)}) == 80
    classes = np.repeat(np.arange(40), 2 * 120).reshape(80, 120)
    picture = np.asarray(draw_masks(GREY, classes, [f"n{number}" for number in range(40)]))
    below = {tuple(pixel) for pixel in picture[80:].reshape(-1, 3).tolist()}
    assert {colour_of(kind) for kind in range(40)} <= below


def test_a_name_of_two_lines_or_wider_than_the_picture_stands_in_one_line_that_fits():
    names = ["a thing\nof two lines", "a name that is " + "very " * 20 + "long"]
    classes = np.repeat([0, 1], 40 * 120).reshape(80, 120)
    picture = np.asarray(draw_masks(GREY, classes, names))
    assert (picture[80:, 116:] == 255).all(), "the legend ends inside the picture"
    boxes = draw_boxes(GREY, as_boxes([[10, 40, 50, 60]]), [0], names[:1])
    assert boxes.size == (120, 80)
