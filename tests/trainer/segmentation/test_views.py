"""Windows of an image, and their merging, by hand."""

import pytest
import torch

from trainer.errors import TrainingError
from trainer.segmentation.settings import ViewSettings
from trainer.segmentation.views import corners, cut, merge

SMALL = ViewSettings(canvas_px=3, stride_px=1)


def test_cat_segs_four_windows():
    assert corners(ViewSettings(), 384) == [(0, 0), (0, 256), (256, 0), (256, 256)]


def test_overlaps_are_averaged_and_the_whole_counts_half():
    windows = [torch.full((1, 2, 2), float(value)) for value in (1, 2, 3, 4)]
    whole = torch.full((1, 2, 2), 10.0)
    found = merge(torch.stack([*windows, whole]), SMALL)
    averaged = torch.tensor([[1, 1.5, 2], [2, 2.5, 3], [3, 3.5, 4]])
    torch.testing.assert_close(found, (averaged + 10)[None] / 2)


def test_windows_are_cut_where_they_are_merged():
    image = torch.arange(9.0).reshape(1, 3, 3).repeat(3, 1, 1)
    found = cut(image, SMALL, 2)
    assert found.shape == (5, 3, 2, 2)
    assert found[:4, 0].tolist() == [[[0, 1], [3, 4]], [[1, 2], [4, 5]], [[3, 4], [6, 7]], [[4, 5], [7, 8]]]
    torch.testing.assert_close(merge(torch.cat([found[:4], found[4:]]), SMALL)[0, 1, 1], torch.tensor(4.0))


def test_the_whole_alone_is_one_view():
    alone = ViewSettings(canvas_px=0)
    found = cut(torch.zeros(3, 40, 90), alone, 16)
    assert found.shape == (1, 3, 16, 16)
    assert merge(found, alone).shape == (3, 16, 16)


def test_a_long_image_is_squashed():
    assert cut(torch.zeros(3, 10, 3000), ViewSettings(canvas_px=96, stride_px=32), 64).shape == (5, 3, 64, 64)


@pytest.mark.parametrize(("canvas", "stride"), [(300, 100), (640, 200), (1024, 640)])
def test_windows_that_leave_something_out_are_refused(canvas, stride):
    with pytest.raises(TrainingError, match=r"windows of 384 pixels do not cover it"):
        corners(ViewSettings(canvas_px=canvas, stride_px=stride), 384)
