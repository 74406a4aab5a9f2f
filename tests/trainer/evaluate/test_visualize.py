"""The figure: clusters that say what they should, maps that rise where they should, the same bytes every time."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

import fineclip
from tests.trainer.evaluate.coco_files import write_coco
from tests.trainer.towers import EVA, VIT, add_plain_model
from trainer.evaluate.clusters import cluster, like_first
from trainer.evaluate.figure import PANEL_PX, cluster_panel, shortened, similarity_panel


def test_clusters_are_the_groups_of_the_rows():
    generator = torch.Generator().manual_seed(0)
    groups = torch.arange(60) % 3
    rows = torch.nn.functional.normalize(torch.eye(3)[groups] + 0.1 * torch.randn(60, 3, generator=generator))
    found = cluster(rows, 3)
    assert len(set(zip(found.tolist(), groups.tolist(), strict=True))) == 3
    assert torch.equal(found, cluster(rows, 3))
    assert set(cluster(torch.ones(5, 2), 4).tolist()) == {0}


def test_clusters_of_two_models_share_their_colours():
    first, other = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([2, 2, 0, 0, 0, 1])
    assert like_first(other, first).tolist() == [0, 0, 1, 1, 1, 2]


def test_panels_show_their_patches():
    pixels = np.full((20, 40, 3), 128, dtype=np.uint8)
    clusters = cluster_panel(pixels, np.array([[0, 1]])).picture
    assert clusters.size == (PANEL_PX, PANEL_PX // 2)
    assert clusters.getpixel((10, 10)) != clusters.getpixel((PANEL_PX - 10, 10))
    panel = similarity_panel(pixels, np.array([[0.125, 0.5]], dtype=np.float32))
    left, right = (sum(panel.picture.getpixel((x, 60))) for x in (5, PANEL_PX - 5))
    assert left < right and panel.below == "0.12 to 0.50"


def test_long_names_lose_their_middle():
    pen, font = ImageDraw.Draw(Image.new("RGB", (1, 1))), ImageFont.load_default(size=16)
    assert shortened("short", pen, font) == "short"
    cut = shortened("a-run-of-many-words/" * 5, pen, font)
    assert "…" in cut and pen.textlength(cut, font=font) <= PANEL_PX


@pytest.fixture
def images(tmp_path: Path) -> str:
    write_coco(tmp_path)
    return str(tmp_path / "val2017")


def test_a_figure_by_command(images, tmp_path, capsys):
    flags = ["--images", images, "--device", "cpu", "--image-size", "64", "--prompt", "a cat", "--limit", "3"]
    files = [tmp_path / "new" / f"{name}.png" for name in "ab"]
    for file in files:
        assert fineclip.main(["visualize", VIT, EVA, *flags, "--out", str(file)]) == 0
    assert files[0].read_bytes() == files[1].read_bytes()
    with Image.open(files[0]) as picture:
        assert picture.width == 5 * (PANEL_PX + 10) + 10
    assert "model 2 of 2" in capsys.readouterr().err


def test_what_cannot_be_shown_is_told(images, tmp_path, capsys):
    out = ["--out", str(tmp_path / "a.png"), "--device", "cpu"]
    empty = tmp_path / "empty"
    empty.mkdir()
    for arguments, message in (
        ([VIT, "--images", str(tmp_path / "gone")], "there is no such folder"),
        ([VIT, "--images", str(empty)], "no image is in it"),
        ([add_plain_model(tmp_path), "--images", images], "no dense map, so its patches cannot be shown"),
    ):
        assert fineclip.main(["visualize", *arguments, *out]) == 2
        assert message in " ".join(capsys.readouterr().err.split())
    with pytest.raises(SystemExit):
        fineclip.main(["visualize", VIT, "--images", images, *out, "--clusters", "13"])
    assert "give 2 to 12" in capsys.readouterr().err
