"""What a captioner sees of a region: four views of it, on every size of box, image and mask."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from pipeline.backends import SettingError
from pipeline.caption import step, view
from pipeline.caption.crop import cut
from pipeline.caption.rule import Rule, RuleConfig
from pipeline.caption.view import MaskError, ViewSettings, crops_of, dimmed, marked
from pipeline.clock import StageClock
from pipeline.golden.pictures import golden_images
from pipeline.propose.manual import ManualConfig
from pipeline.sample import Candidate, Caption, Crop, Pixels, Sample
from pipeline.settings import CaptionConfiguration
from schemas.coco import compress_runs
from schemas.dataset import Dataset
from tests.builders import CHEAP, annotate, configuration, decoded_image, jpeg, run, write_tar

RED, WHITE = (255, 0, 0), (255, 255, 255)
BOXES = ((4.5, 5.0, 20.0, 16.25), (0.0, 0.0, 40.0, 30.0), (0.0, 0.0, 1.0, 1.0), (39.0, 29.0, 40.0, 30.0), (7, 8, 8, 9))


def noise(width: int = 40, height: int = 30) -> Pixels:
    return np.random.default_rng(0).integers(60, 200, (height, width, 3), dtype=np.uint8)


def rle(mask: np.ndarray) -> str:
    """A mask as COCO's compressed run lengths."""
    flat = mask.T.reshape(-1).astype(int)
    edges = np.flatnonzero(np.diff(flat, prepend=0)).tolist()
    return compress_runs(np.diff([0, *edges, flat.size]).tolist())


def sample_of(pixels: Pixels, *boxes: tuple[float, float, float, float], masks: Sequence[str | None] = ()) -> Sample:
    image = decoded_image(pixels)
    regions = [
        Candidate(region_id=f"r{n}", box=box, proposal_score=1.0, label=None, count=1, drop=None, mask=mask)
        for n, (box, mask) in enumerate(zip(boxes, masks or [None] * len(boxes), strict=True))
    ]
    return Sample(item=image.item, image=image, candidates=regions)


def seen(sample: Sample, **settings: Any) -> list[Pixels]:
    crops = list(crops_of(sample, ViewSettings(**settings)))
    assert all(isinstance(crop, Crop) for crop in crops), crops
    return [crop.pixels for crop in crops if isinstance(crop, Crop)]


@pytest.mark.parametrize("box", BOXES)
def test_a_crop_is_the_tight_box_and_context_has_room_around_it(box: tuple[float, float, float, float]) -> None:
    pixels = noise()
    (tight,), (wide,) = seen(sample_of(pixels, box)), seen(sample_of(pixels, box), view="context")
    assert (tight == cut(pixels, box)).all()
    assert (wide == cut(pixels, box, scale=1.5)).all()
    (wider,) = seen(sample_of(pixels, box), view="context", context_scale=3)
    assert (wider == cut(pixels, box, scale=3)).all()


@pytest.mark.parametrize("box", BOXES)
def test_a_frame_surrounds_a_region_and_hides_nothing_of_it(box: tuple[float, float, float, float]) -> None:
    pixels = noise()
    picture = marked(pixels, box)
    red = (picture == RED).all(axis=2)
    (ys, xs) = np.nonzero(red)
    inside = picture[ys.min() + 3 : ys.max() - 2, xs.min() + 3 : xs.max() - 2]  # two red pixels and a white one
    assert (inside == cut(pixels, box)).all()
    ring = picture[ys.min() - 1 : ys.max() + 2, xs.min() - 1 : xs.max() + 2]
    for edge in (ring[0], ring[-1], ring[:, 0], ring[:, -1]):
        assert (edge == WHITE).all(), "red alone would not be seen on red"
    assert red.sum() == ring[..., 0].size - (np.subtract(ring.shape[:2], 2) - 4).prod() - 2 * sum(ring.shape[:2]) + 4


def test_an_image_grows_only_where_a_frame_has_no_room() -> None:
    pixels = noise()
    assert marked(pixels, (10, 10, 20, 20)).shape == (30, 40, 3)
    assert marked(pixels, (2, 10, 20, 29)).shape == (33, 42, 3)
    assert marked(pixels, (0, 0, 40, 30)).shape == (38, 48, 3)
    assert (marked(pixels, (0, 0, 9, 9))[-20:, -20:] == pixels[-20:, -20:]).all()


@pytest.mark.parametrize(("side", "line"), [(1, 1), (16, 1), (256, 1), (512, 2), (1536, 6)])
def test_the_frame_is_as_wide_as_its_image_wants(side: int, line: int) -> None:
    black = np.zeros((side, side, 3), np.uint8)
    picture = marked(black, (0, 0, side, side))
    column = picture[:, len(picture) // 2]
    assert [tuple(pixel) for pixel in column[: 4 * line]] == [WHITE] * line + [RED] * 2 * line + [WHITE] * line
    assert len(column) == side + 8 * line


def test_large_images_are_scaled_down_before_a_box_is_drawn() -> None:
    pixels = noise(2000, 30)
    pixels[:, 1000:1500] = 0
    first, second = seen(sample_of(pixels, (1000, 0, 1500, 30), (0, 0, 1000, 30)), view="marked")
    assert first.shape[1] == 1536 and second.shape[1] == 1536 + 24
    xs = np.nonzero((first == RED).all(axis=2).any(axis=0))[0]
    assert (xs.min(), xs.max()) == (768 - 18, 1152 + 17), "the box moves with the image"
    assert not first[30, 770:1150].any()


def test_each_region_is_a_picture_of_its_own_and_the_image_stays_as_it_was() -> None:
    pixels = noise()
    sample, before = sample_of(pixels, *BOXES), pixels.copy()
    pictures = seen(sample, view="marked")
    assert len({picture.tobytes() for picture in pictures}) == len(BOXES)
    assert (pixels == before).all()


@pytest.mark.parametrize("name", ["crop", "context", "marked"])
def test_no_view_holds_on_to_the_image(name: str) -> None:
    pixels = noise()
    for picture in seen(sample_of(pixels, *BOXES), view=name):
        assert not np.shares_memory(picture, pixels) and picture.flags.c_contiguous


def test_what_is_outside_of_the_mask_is_dimmed_its_holes_too() -> None:
    pixels, mask = noise(), np.zeros((30, 40), bool)
    mask[5:20, 5:25] = True
    mask[10:12, 8:12] = False
    (picture,) = seen(sample_of(pixels, (3, 4, 30, 20), masks=[rle(mask)]), view="alpha")
    inside, crop = mask[4:20, 3:30], pixels[4:20, 3:30]
    assert (picture[inside] == crop[inside]).all()
    assert (picture[~inside] == np.rint(crop[~inside] * 0.25 + 96)).all()
    assert picture.dtype == np.uint8 and picture.flags.c_contiguous


@pytest.mark.parametrize("box", BOXES)
def test_a_mask_of_the_whole_image_leaves_the_crop(box: tuple[float, float, float, float]) -> None:
    pixels = noise()
    assert (dimmed(pixels, box, rle(np.ones((30, 40), bool))) == cut(pixels, box)).all()


def test_masks_are_read_as_pycocotools_writes_them() -> None:
    from pipeline.propose.masks import as_rle

    mask = np.random.default_rng(1).random((30, 40)) > 0.4
    counts = as_rle(mask.astype(np.uint8))
    assert counts == rle(mask)
    assert (view._mask(counts, width=40, height=30) == mask).all()


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (None, "the region has no mask"),
        ("", "not one of an image of 40 x 30"),
        ("!!", "not one of an image of 40 x 30"),
        (rle(np.ones((20, 20), bool)), "not one of an image of 40 x 30"),
        (rle(np.eye(30, 40, 20) > 0), "no pixel of the region's mask lies in its box"),
    ],
)
def test_a_region_without_a_mask_that_fits_is_dead(mask: str | None, message: str) -> None:
    with pytest.raises(MaskError, match=message):
        dimmed(noise(), (0, 0, 10, 30), mask)
    sample = sample_of(noise(), (0, 0, 10, 30), (5, 5, 40, 30), masks=[mask, rle(np.ones((30, 40), bool))])
    captions = step.CaptionStep(captioner=Rule(RuleConfig()), view=ViewSettings(view="alpha"), prepares_ahead=False)
    (done,) = captions.run(iter([sample]), captions.batcher(), StageClock())
    drop = done.captions["r0"].drop
    assert drop is not None and (drop.reason, drop.stage) == ("no_mask", "crop")
    assert message.replace("mask, ", "") in drop.message
    assert done.captions["r1"].drop is None and done.captions["r1"].text


@pytest.mark.parametrize("photograph", golden_images(), ids=lambda image: image.key)
def test_every_view_of_a_photograph_is_a_picture(photograph: Any) -> None:
    width, height = photograph.width, photograph.height
    whole = rle(np.ones((height, width), bool))
    for name in ("crop", "context", "marked", "alpha"):
        boxes = ((0, 0, width, height), (width - 1, height - 1, width, height), (3, 3, 90, 50))
        for picture in seen(sample_of(photograph.pixels, *boxes, masks=[whole] * 3), view=name):
            assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3 and min(picture.shape) > 0


# settings, and the command


@pytest.mark.parametrize("scale", [0, 0.99, float("nan"), float("inf")])
def test_settings_name_the_flag(scale: float) -> None:
    with pytest.raises(ValueError, match=r"--caption\.context-scale is .* at least 1"):
        ViewSettings(view="context", context_scale=scale)
    with pytest.raises(ValueError, match=r"--caption\.context-scale is of --caption\.view context, not of crop"):
        ViewSettings(context_scale=2)


def test_the_fingerprint_knows_the_view() -> None:
    views = [ViewSettings(view=name) for name in ("crop", "context", "marked", "alpha")]  # type: ignore[arg-type]
    views += [ViewSettings(view="context", context_scale=2)]
    asked = FakeConfig(prompt="What is in the box?")
    assert len({configuration(view=one, caption=asked).fingerprint() for one in views}) == 5
    stated = ViewSettings(view="context", context_scale=1.5)
    assert configuration(view=stated).fingerprint() == configuration(view=views[1]).fingerprint()


def test_alpha_without_masks_is_a_usage_error() -> None:
    from pipeline.propose.fastsam import FastSamConfig

    alpha = ViewSettings(view="alpha")
    with pytest.raises(SettingError, match=r"--caption\.view alpha .*--propose\.masks true"):
        configuration(view=alpha, proposer="fastsam", propose=FastSamConfig())
    configuration(view=alpha, proposer="fastsam", propose=FastSamConfig(masks=True))
    configuration(view=alpha, propose=ManualConfig())


def test_a_whole_image_wants_a_prompt_that_names_the_box() -> None:
    from pipeline.caption.vlm import VlmConfig

    box = ViewSettings(view="marked")
    with pytest.raises(SettingError, match=r"for captioners that can be asked about the box"):
        CaptionConfiguration(captioner="rule", caption=RuleConfig(), view=box)
    with pytest.raises(SettingError, match=r"say in --caption\.prompt which part"):
        CaptionConfiguration(captioner="vlm", caption=VlmConfig(), view=box)
    CaptionConfiguration(captioner="vlm", caption=VlmConfig(prompt="What is in the red box?"), view=box)


@dataclass(frozen=True)
class FakeConfig(RuleConfig):
    prompt: str | None = None


class FakeCaptioner(Rule):
    """Says how large and how bright the picture is that it is shown."""

    name: ClassVar[str] = "rule"
    config_class: ClassVar[type[RuleConfig]] = FakeConfig

    def caption(self, crops: Sequence[Crop], prompts: Sequence[str | None]) -> list[Caption]:
        told = [f"{crop.pixels.shape[1]} by {crop.pixels.shape[0]}, {crop.pixels.mean():.0f}" for crop in crops]
        return [Caption(text=text, score=None) for text in told]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rule is a fake that tells what it was shown."""
    monkeypatch.setattr("pipeline.caption.rule.Rule", FakeCaptioner)


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    """One image of 96 x 64 with two regions, of which one comes with a mask."""
    mask = np.zeros((64, 96), bool)
    mask[10:30, 10:30] = True
    regions = [{"box": [10, 10, 40, 40], "mask_rle": rle(mask)}, {"box": [50, 10, 90, 60]}]
    record = json.dumps({"regions": regions}).encode()
    return write_tar(tmp_path / "tars" / "0.tar", [[("a.jpg", jpeg(1)), ("a.json", record)]]).parent


def captions(output: Path, **opened: Any) -> dict[str, Any]:
    rows = Dataset.open(output, **opened).regions().to_pylist()
    return {row["region_id"]: row["caption"] or row["reason"] for row in rows if row["region_id"]}


@pytest.mark.usefixtures("shown")
def test_annotate_and_recaption_show_the_same(tar: Path, tmp_path: Path) -> None:
    annotate(tar, tmp_path / "crop")
    first, second = captions(tmp_path / "crop")
    assert [captions(tmp_path / "crop")[name].split(",")[0] for name in (first, second)] == ["30 by 30", "40 by 50"]
    expected = {
        "context": ["46 by 46", "56 by 64"],
        "marked": ["96 by 64", "96 by 64"],
        "alpha": ["30 by 30", "no_mask"],
    }
    for name, sizes in expected.items():
        asked = ("--caption.prompt", "What is in the box?") if name == "marked" else ()
        annotate(tar, tmp_path / name, flags=(*CHEAP, "--caption.view", name, *asked))
        found = captions(tmp_path / name)
        assert [found[region].split(",")[0] for region in (first, second)] == sizes
        again = run(
            *("recaption", tmp_path / "crop", "--captioner", "rule", "--as", name, "--caption.view", name),
            *("--max-dead", "1", *asked),
        )
        assert again.code == 0, again
        assert captions(tmp_path / "crop", overlays=[name]) == found
        marker = json.loads((tmp_path / name / "train-000000.json").read_bytes())
        assert marker["provenance"]["captioner"]["view"]["name"] == name


def test_the_command_says_what_is_wrong(tar: Path, tmp_path: Path) -> None:
    search = ("--proposer", "selective_search", "--captioner", "rule")
    for flags, message in (
        (("--caption.view", "alpha", *search), "--propose.masks true"),
        (("--caption.view", "tight", *CHEAP), "--caption.view is 'tight', but must be one of crop, context, marked"),
        (("--caption.context-scale", "2", *CHEAP), "--caption.context-scale is of --caption.view context"),
        (("--caption.view", "context", "--caption.context-scale", "x", *CHEAP), "--caption.context-scale is 'x'"),
    ):
        refused = run("annotate", tar, tmp_path / "out", *flags)
        assert (refused.code, message in refused.err) == (2, True), refused
    assert not (tmp_path / "out").exists()
    annotate(tar, tmp_path / "out")
    refused = run("annotate", tar, tmp_path / "out", *CHEAP, "--caption.view", "context")
    assert (refused.code, "view.name: 'crop'" in refused.err) == (3, True), refused


def test_recaption_on_a_data_set_without_masks_is_a_usage_error(tar: Path, tmp_path: Path) -> None:
    search = ("--proposer", "selective_search", "--captioner", "rule", "--propose.working-side", "64")
    annotate(tar, tmp_path / "out", flags=search)
    refused = run("recaption", tmp_path / "out", "--captioner", "rule", "--as", "x", "--caption.view", "alpha")
    assert (refused.code, "these regions have none" in refused.err) == (2, True), refused
    assert not (tmp_path / "out" / "_overlays").exists()


def test_a_config_file_and_the_help_have_the_view(tar: Path, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("caption: {view: context, context_scale: 2}\n")
    annotate(tar, tmp_path / "out", flags=(*CHEAP, "--config", str(tmp_path / "c.yaml")))
    marker = json.loads((tmp_path / "out" / "train-000000.json").read_bytes())
    assert marker["provenance"]["captioner"]["view"] == {"name": "context", "scale": 2.0}
    for command in ("annotate", "recaption"):
        told = run(command, "--help", "--captioner", "rule").out
        assert "--caption.view {crop,context,marked,alpha}" in told and "--caption.context-scale" in told
    printed = run("annotate", tar, tmp_path / "o", *CHEAP, "--print-config").out
    assert "view: crop" in printed
