"""BLIP-2 with small random weights: the captions mean nothing, but batching, padding and scores must hold."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.caption.base import Crop
from pipeline.caption.blip2 import Blip2, Blip2Config
from pipeline.weights import WeightsNotFoundError
from tests.random_models import random_blip2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("blip2")
    random_blip2(path)
    return path


def _config(folder: Path, **settings: object) -> Blip2Config:
    defaults = {"model": str(folder), "dtype": "float32", "max_new_tokens": 6, "batch_size": 8}
    return Blip2Config(**(defaults | settings))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def captioner(folder: Path) -> Blip2:
    return Blip2(_config(folder))


def _crops(count: int) -> list[Crop]:
    rng = np.random.default_rng(0)
    return [
        Crop(
            region_id=f"{number:016x}",
            pixels=rng.integers(0, 256, (3 + 9 * number, 40, 3), dtype=np.uint8),
            box=(0, 0, 40, 30),
            image_width=100,
            image_height=100,
            label=None,
        )
        for number in range(count)
    ]


@pytest.mark.parametrize("count", [1, 3, 8])
def test_every_crop_gets_its_caption_and_a_score(captioner: Blip2, count: int) -> None:
    captions = captioner.caption(_crops(count), [None] * count)
    assert len(captions) == count
    assert all(caption.text == caption.text.strip() for caption in captions)
    assert all(caption.score is not None and 0 < caption.score <= 1 for caption in captions)


def test_batch_mates_change_no_caption(captioner: Blip2) -> None:
    crops = _crops(6)
    together = captioner.caption(crops, [None] * 6)
    alone = [captioner.caption([crop], [None])[0] for crop in crops]
    assert [caption.text for caption in alone] == [caption.text for caption in together]
    assert [c.score for c in alone] == pytest.approx([c.score for c in together], abs=1e-4)


def test_the_score_is_the_mean_probability_of_the_caption_s_tokens(captioner: Blip2) -> None:
    crop = _crops(1)
    inputs = captioner._inputs(crop, None)
    with torch.inference_mode():
        output = captioner._model.generate(
            **inputs, max_new_tokens=6, do_sample=False, output_logits=True, return_dict_in_generate=True
        )
    logs = [logits.log_softmax(-1)[0].max() for logits in output.logits]  # greedy: each token is the likeliest
    expected = torch.stack(logs).mean().exp().item()
    assert captioner.caption(crop, [None])[0].score == pytest.approx(expected, abs=1e-4)


def test_a_prompt_is_asked_and_not_part_of_the_caption(folder: Path) -> None:
    prompted = Blip2(_config(folder, prompt="a small red"))
    captions = prompted.caption(_crops(2), ["a small red"] * 2)
    assert len(captions) == 2
    assert not any(caption.text.startswith("a small red") for caption in captions)
    assert prompted.provenance()["prompt"] == "a small red"


def test_beams_are_scored_too(folder: Path) -> None:
    captions = Blip2(_config(folder, num_beams=3)).caption(_crops(2), [None] * 2)
    assert all(caption.score is not None and 0 < caption.score <= 1 for caption in captions)


def test_missing_weights_say_which_flag_takes_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsNotFoundError, match=r"--caption\.model"):
        Blip2.weights(Blip2Config(model="./nowhere"))


def test_weights_are_named_by_content(folder: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    folder.rename(moved)
    try:
        named = Blip2.weights(_config(moved))
    finally:
        moved.rename(folder)
    assert named["model"].startswith("sha256:")
    assert str(tmp_path) not in named["model"]
