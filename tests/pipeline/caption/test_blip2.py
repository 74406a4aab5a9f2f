"""BLIP-2 with small random weights: the captions mean nothing, but batching, padding and scores must hold."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.caption.base import PreparingCaptioner
from pipeline.caption.blip2 import Blip2, Blip2Config
from pipeline.caption.generation import answers_of
from pipeline.models.licenses import BITSANDBYTES
from pipeline.models.weights import WeightsNotFoundError
from pipeline.sample import Crop
from tests.random_captioners import random_blip2_t5
from tests.random_models import random_blip2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("blip2")
    random_blip2(path)
    return path


@pytest.fixture(scope="module")
def t5_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("blip2-t5")
    random_blip2_t5(path)
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


@pytest.mark.parametrize("head", ["folder", "t5_folder"])
@pytest.mark.parametrize("prompt", [None, "a small"])
def test_the_score_is_the_mean_probability_of_the_caption_s_tokens(
    head: str, prompt: str | None, request: pytest.FixtureRequest
) -> None:
    captioner = Blip2(_config(request.getfixturevalue(head), prompt=prompt))
    prepared = captioner.prepare(_crops(1), [prompt])
    with torch.inference_mode():
        output = captioner._model.generate(
            **prepared.inputs, max_new_tokens=6, do_sample=False, output_logits=True, return_dict_in_generate=True
        )
    logs = [logits.log_softmax(-1)[0].max() for logits in output.logits]  # greedy: each token is the likeliest
    expected = torch.stack(logs).mean().exp().item()
    assert captioner.generate(prepared)[0].score == pytest.approx(expected, abs=1e-4)


def test_a_t5_head_captions_alike_alone_and_in_a_batch(t5_folder: Path) -> None:
    captioner = Blip2(_config(t5_folder, num_beams=2))
    crops = _crops(5)
    together = captioner.caption(crops, [None] * 5)
    alone = [captioner.caption([crop], [None])[0] for crop in crops]
    assert [caption.text for caption in alone] == [caption.text for caption in together]
    assert len({caption.text for caption in together}) > 1, "the text must depend on the picture"


def test_a_head_that_needs_words_to_begin_with_says_so(t5_folder: Path, tmp_path: Path) -> None:
    config = json.loads((t5_folder / "config.json").read_text())
    del config["text_config"]["bos_token_id"]
    for file in t5_folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"--caption\.prompt"):
        Blip2(_config(tmp_path))
    assert len(Blip2(_config(tmp_path, prompt="a photo of")).caption(_crops(1), ["a photo of"])) == 1


def test_captioning_is_generating_from_what_was_prepared(captioner: Blip2) -> None:
    assert isinstance(captioner, PreparingCaptioner)
    crops = _crops(3)
    prepared = captioner.prepare(crops, [None] * 3)
    assert prepared.inputs["pixel_values"].shape[0] == 4
    assert captioner.generate(prepared) == captioner.caption(crops, [None] * 3)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_holds_the_weights_and_gives_the_score_nearly(
    folder: Path, captioner: Blip2, dtype: str
) -> None:
    half = Blip2(_config(folder, dtype=dtype))
    assert half._model.language_model.get_input_embeddings().weight.dtype == getattr(torch, dtype)
    assert half.prepare(_crops(1), [None]).inputs["pixel_values"].dtype == getattr(torch, dtype)
    exact, nearly = (one.caption(_crops(2), [None] * 2)[0].score for one in (captioner, half))
    assert nearly == pytest.approx(exact, rel=0.1)  # 5.2 % with torch 2.10


def test_int8_says_at_the_start_what_to_install(folder: Path) -> None:
    if importlib.util.find_spec("bitsandbytes"):
        pytest.skip("bitsandbytes is installed")
    with pytest.raises(ImportError, match="pip install bitsandbytes"):
        Blip2.weights(_config(folder, dtype="int8"))


def test_int8_runs_where_bitsandbytes_is_installed(folder: Path, captioner: Blip2) -> None:
    pytest.importorskip("bitsandbytes")
    config = _config(folder, dtype="int8")
    quantised = Blip2(config)
    exact, nearly = (one.caption(_crops(2), [None] * 2)[0].score for one in (captioner, quantised))
    assert nearly == pytest.approx(exact, rel=0.1)
    assert BITSANDBYTES in Blip2.licenses(config)
    assert "bitsandbytes" in quantised.provenance()["libraries"]


@pytest.mark.parametrize("settings", [{"no_repeat_ngram_size": 1}, {"repetition_penalty": 50.0}])
def test_decoding_options_reach_the_search(t5_folder: Path, settings: dict[str, float]) -> None:
    def most_of_one_token(captioner: Blip2) -> int:
        with torch.inference_mode():
            inputs = captioner.prepare(_crops(3), [None] * 3).inputs
            rows = captioner._model.generate(**inputs, **captioner.config.arguments()).sequences[:, 1:]
        return max(int(row.bincount().max()) for row in rows)

    assert most_of_one_token(Blip2(_config(t5_folder))) > 2, "the random model repeats itself when it may"
    assert most_of_one_token(Blip2(_config(t5_folder, **settings))) == 1


@pytest.mark.parametrize(
    "settings",
    [{"num_beams": 0}, {"max_new_tokens": 0}, {"min_new_tokens": 9}, {"repetition_penalty": 0.0}],
)
def test_decoding_that_cannot_work_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=rf"--caption\.{next(iter(settings)).replace('_', '-')}"):
        Blip2Config(**{"max_new_tokens": 6} | settings)  # type: ignore[arg-type]


def test_a_prompt_is_asked_and_not_part_of_the_caption(folder: Path) -> None:
    prompted = Blip2(_config(folder, prompt="a small red"))
    captions = prompted.caption(_crops(2), ["a small red"] * 2)
    assert len(captions) == 2
    assert not any(caption.text.startswith("a small red") for caption in captions)
    assert prompted.provenance()["prompt"] == "a small red"


def test_beams_are_scored_too(folder: Path) -> None:
    captions = Blip2(_config(folder, num_beams=3)).caption(_crops(2), [None] * 2)
    assert all(caption.score is not None and 0 < caption.score <= 1 for caption in captions)


@pytest.mark.parametrize(("head", "num_beams"), [("folder", 1), ("t5_folder", 1), ("t5_folder", 3)])
def test_a_caption_is_unfinished_unless_an_end_is_in_it(
    head: str, num_beams: int, request: pytest.FixtureRequest
) -> None:
    short, long = (
        Blip2(_config(request.getfixturevalue(head), num_beams=num_beams, max_new_tokens=length)) for length in (2, 40)
    )
    for one in (short, long):
        prepared = one.prepare(_crops(4), [None] * 4)
        with torch.inference_mode():
            rows, _ = answers_of(one._model, prepared.inputs, one.config)
        end = one._model.language_model.generation_config.eos_token_id
        has_end = [end in row for row in rows.tolist()]
        assert [caption.unfinished is None for caption in one.generate(prepared)] == has_end


@pytest.mark.parametrize("head", ["folder", "t5_folder"])
def test_the_vision_tower_s_batches_change_no_caption(head: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(head)
    whole, parts = (Blip2(_config(folder, vision_batch_size=size)) for size in (8, 3))
    crops = _crops(8)
    expected, seen = (one.caption(crops, [None] * 8) for one in (whole, parts))
    assert [caption.text for caption in seen] == [caption.text for caption in expected]
    assert [caption.score for caption in seen] == pytest.approx([caption.score for caption in expected], abs=1e-4)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_model_in_halves_is_in_halves_throughout(folder: Path, dtype: str) -> None:
    captioner = Blip2(_config(folder, dtype=dtype))
    assert {parameter.dtype for parameter in captioner._model.parameters()} == {getattr(torch, dtype)}
    assert len(captioner.caption(_crops(2), [None] * 2)) == 2


def test_greedy_search_gives_each_step_s_logits_up(folder: Path) -> None:
    captioner = Blip2(_config(folder))
    prepared = captioner.prepare(_crops(4), [None] * 4)
    with torch.inference_mode():
        tokens, logs = answers_of(captioner._model, prepared.inputs, captioner.config)
        plain = captioner._model.generate(**prepared.inputs, **captioner.config.arguments() | {"output_logits": True})
    assert tokens.tolist() == plain.sequences[:, -len(plain.logits) :].tolist()
    kept = torch.stack([step.log_softmax(-1) for step in plain.logits], dim=1).gather(2, tokens[..., None])[..., 0]
    assert torch.allclose(logs, kept, atol=1e-5)
    assert not captioner._model.language_model._forward_hooks


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
