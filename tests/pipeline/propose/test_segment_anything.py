"""One model in two layouts, transformers' and its authors', gives the same boxes; and what a .pth must be."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.backends import check_ranges
from pipeline.models.state_dict import WeightsError
from pipeline.models.weights import WeightsNotFoundError
from pipeline.propose import segment_anything
from pipeline.propose.sam import Sam, SamConfig
from pipeline.sample import DecodedImage, Pixels
from schemas.coco import decompress_runs
from tests.random_models import random_sam
from tests.random_sam import WIDTH, random_edgetam, random_sam2, register_tiny, write_in_authors_layout

MakeImage = Callable[..., DecodedImage]
META: dict[str, Any] = {"engine": "segment-anything"}
LOOSE: dict[str, Any] = {"points_per_side": 3, "min_stability": 0, "min_score": 0, "max_iou": 1, "masks": True}
"""Random weights make masks that are neither stable nor different."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`hub/`, and the same weights as `authors.pth`."""
    path = tmp_path_factory.mktemp("sam")
    random_sam(path / "hub")
    write_in_authors_layout(path / "hub", path / "authors.pth")
    return path


@pytest.fixture
def hub(folder: Path) -> SamConfig:
    return SamConfig(model=str(folder / "hub"), **LOOSE)


@pytest.fixture
def authors(folder: Path, monkeypatch: pytest.MonkeyPatch) -> SamConfig:
    """The package knows the small model, beside ViT-B, L and H."""
    import hashlib

    register_tiny(monkeypatch)
    sha256 = hashlib.sha256((folder / "authors.pth").read_bytes()).hexdigest()
    return SamConfig(model=str(folder / "authors.pth"), sha256=sha256, **META, **LOOSE)


@pytest.mark.parametrize(("height", "width"), [(128, 128), (80, 128), (128, 33)])
def test_both_engines_give_the_same_boxes_and_masks(
    hub: SamConfig, authors: SamConfig, make_image: MakeImage, noise: Callable[..., Pixels], height: int, width: int
) -> None:
    images = [make_image(noise(height, width, seed)) for seed in (1, 2)]
    for ours, theirs in zip(Sam(hub).propose(images), Sam(authors).propose(images), strict=True):
        assert len(ours.boxes) == 27
        order = np.lexsort((ours.scores, *ours.boxes.T)), np.lexsort((theirs.scores, *theirs.boxes.T))
        np.testing.assert_array_equal(ours.boxes[order[0]], theirs.boxes[order[1]])
        np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-4)
        assert ours.masks is not None and theirs.masks is not None
        first, second = (inside(masks, height * width) for masks in (ours.masks, theirs.masks))
        assert np.abs(np.subtract(first, second)).max() <= 0.002 * height * width, "logits near 0 may fall either way"


def inside(masks: Any, size: int) -> list[int]:
    """The number of pixels in each mask, sorted: equal scores leave the engines in any order."""
    runs = [decompress_runs(mask) for mask in masks]
    assert {sum(run) for run in runs} == {size}
    return sorted(sum(run[1::2]) for run in runs)


@pytest.mark.parametrize("settings", [{}, {"max_iou": 0.7}, {"max_proposals": 2}, {"min_score": 0.946}])
def test_both_engines_scale_images_and_choose_masks_alike(
    hub: SamConfig, authors: SamConfig, make_image: MakeImage, noise: Callable[..., Pixels], settings: dict[str, Any]
) -> None:
    images = [make_image(noise(300, 200, 1))]
    (ours,), (theirs,) = (Sam(replace(config, **settings)).propose(images) for config in (hub, authors))
    assert len(ours.boxes) == len(theirs.boxes) > 0
    np.testing.assert_allclose(ours.boxes[np.lexsort(ours.boxes.T)], theirs.boxes[np.lexsort(theirs.boxes.T)], atol=2)
    np.testing.assert_allclose(ours.scores, theirs.scores, atol=2e-3)


def test_the_generator_gets_each_of_its_settings(authors: SamConfig) -> None:
    config = replace(
        authors,
        points_per_side=2,
        points_per_batch=3,
        min_score=0.1,
        min_stability=0.2,
        stability_offset=0.5,
        max_iou=0.6,
        crop_layers=1,
        crop_max_iou=0.4,
        crop_overlap=0.25,
        crop_points_divisor=2,
        min_mask_area=5,
    )
    generator: Any = Sam(config)._generator
    held = vars(generator._generator)
    assert [len(grid) for grid in held["point_grids"]] == [4, 1]
    expected = {key: value for key, value in config.of_generator().items() if key != "points_per_side"}
    assert {key: held[key] for key in expected} == expected


def test_parts_of_an_image_are_looked_at_too(
    authors: SamConfig, make_image: MakeImage, noise: Callable[..., Pixels], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [make_image(noise(128, 128, 1))]
    sam: Any = Sam(replace(authors, points_per_side=2, crop_layers=1, crop_overlap=0.25))
    predictor, seen = sam._generator._generator.predictor, []
    take = predictor.set_image
    monkeypatch.setattr(predictor, "set_image", lambda pixels: (seen.append(pixels.shape[:2]), take(pixels)))
    (found,) = sam.propose(images)
    assert seen == [(128, 128), *[(80, 80)] * 4]
    assert (found.boxes[:, 2:] <= 128).all() and (found.boxes[:, :2] >= 0).all()


@pytest.mark.parametrize(
    ("runs", "box"),
    [
        ([12], None),
        ([0, 12], (0, 0, 3, 4)),
        ([5, 2, 5], (1, 1, 2, 3)),
        ([3, 2, 7], (0, 0, 2, 4)),  # from the foot of a column to the head of the next
        ([1, 1, 8, 1, 1], (0, 1, 3, 3)),
        ([2, 0, 3, 1, 6], (1, 1, 2, 2)),
        ([11, 1], (2, 3, 3, 4)),
    ],
)
def test_tight_boxes_of_run_lengths(runs: list[int], box: tuple[int, ...] | None) -> None:
    assert segment_anything._bounds(runs, height=4) == box


def test_an_image_without_masks_has_no_boxes(
    authors: SamConfig, make_image: MakeImage, noise: Callable[..., Pixels]
) -> None:
    (found,) = Sam(replace(authors, min_score=1)).propose([make_image(noise(64, 64, 1))])
    assert (found.boxes.shape, found.scores.shape, found.masks) == ((0, 4), (0,), ())


# what a checkpoint must be


def test_a_pth_is_named_by_its_hash(authors: SamConfig) -> None:
    with pytest.raises(WeightsNotFoundError, match=r"its sha256 is \w{64}; .* give it as --propose\.sha256"):
        Sam(replace(authors, sha256=None))
    with pytest.raises(WeightsNotFoundError, match=r"not the one that --propose\.sha256 names"):
        Sam.weights(replace(authors, sha256="0" * 64))
    named = Sam.weights(authors)
    assert named == {"model": f"sha256:{authors.sha256}", "revision": None, "sha256": None, "license": None}
    provenance = Sam(authors).provenance()
    assert (provenance["settings"]["model"], provenance["weights"]["sha256"]) == ("authors.pth", authors.sha256)
    assert provenance["libraries"]["segment-anything"] == "1.0"
    assert "transformers" not in provenance["libraries"]


def test_a_pickle_that_runs_code_is_not_run(tmp_path: Path) -> None:
    class Fake:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "was-run",))

    torch.save({"model": Fake()}, tmp_path / "bad.pth")
    with pytest.raises(Exception, match=r"Unsupported|not an allowed"):
        segment_anything.SegmentAnything(tmp_path / "bad.pth", "cpu", {})
    assert not (tmp_path / "was-run").exists()


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ([1], "holds list, not the weights"),
        ({"a": torch.zeros(1)}, "no checkpoint of segment-anything's, such as sam_vit_b"),
        ({segment_anything._WIDTH_OF: torch.zeros(5, 3, 16, 16)}, "no checkpoint of segment-anything's"),
        ({segment_anything._WIDTH_OF: torch.zeros(WIDTH, 3, 16, 16)}, "does not fit Sam: "),
    ],
)
@pytest.mark.usefixtures("authors")
def test_another_file_is_refused(tmp_path: Path, state: Any, message: str) -> None:
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=message):
        segment_anything.SegmentAnything(tmp_path / "x.pth", "cpu", {})


def test_a_setting_of_one_engine_is_refused_with_the_other() -> None:
    for name, value in (("crop_layers", 1), ("min_mask_area", 3), ("sha256", "0" * 64)):
        with pytest.raises(ValueError, match=rf"{name.replace('_', '-')} is a setting of .* segment-anything"):
            SamConfig(**{name: value})
    for name, value in (("dtype", "float16"), ("revision", "main")):
        with pytest.raises(ValueError, match=rf"--propose\.{name} is a setting of .*engine transformers"):
            SamConfig(**META, **{name: value})
    with pytest.raises(ValueError, match=r"--propose\.crop-layers is -1"):
        SamConfig(**META, crop_layers=-1)
    check_ranges(SamConfig(), flag="--propose")


def test_the_package_is_asked_for_at_the_start_and_its_terms_are_named(
    authors: SamConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    terms = Sam.licenses(authors)
    assert [(one.what, one.license) for one in terms] == [
        ("segment-anything", "Apache-2.0"),
        ("authors.pth", "unknown"),
    ]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"'segment_anything'; install it with: .*\[segment-anything\]"):
        Sam.weights(authors)


def test_neither_engine_imports_the_other_s_library(folder: Path) -> None:
    code = (
        "import sys; from pipeline.propose.sam import Sam, SamConfig; "
        f"Sam(SamConfig(model={str(folder / 'hub')!r})); assert 'segment_anything' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


# SAM 2 and EdgeTAM


@pytest.mark.parametrize("write", [random_sam2, random_edgetam])
def test_later_models_are_asked_in_the_same_way(
    write: Callable[[Path], None], tmp_path: Path, make_image: MakeImage, noise: Callable[..., Pixels]
) -> None:
    write(tmp_path)
    sam = Sam(SamConfig(model=str(tmp_path), **LOOSE))
    images = [make_image(noise(90, 60, 1)), make_image(noise(40, 200, 2))]
    together = sam.propose(images)
    for image, found in zip(images, together, strict=True):
        height, width = image.pixels.shape[:2]
        assert 0 < len(found.boxes) <= 27
        assert (found.boxes[:, 2] <= width).all() and (found.boxes[:, 3] <= height).all()
        assert (found.boxes[:, 2] > width / 2).any(), "masks are moved to the image's own frame"
        assert found.masks is not None
        inside(found.masks, height * width)
        (alone,) = sam.propose([image])
        np.testing.assert_array_equal(alone.boxes, found.boxes)
    assert together[0].masks != together[1].masks


def test_a_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    from transformers import CLIPConfig, CLIPModel

    small: dict[str, Any] = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    CLIPModel(CLIPConfig(text_config=small, vision_config=small | {"image_size": 32})).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="it is a 'clip'; sam takes sam, sam2"):
        Sam(SamConfig(model=str(tmp_path)))
