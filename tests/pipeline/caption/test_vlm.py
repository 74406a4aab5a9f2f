"""Chat models with small random weights: one whose images take the more tokens the larger they are, and one where
all take as many; and models without a chat template.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.caption.base import PreparingCaptioner, UnevenCaptioner
from pipeline.caption.generation import decoded, thought_tags
from pipeline.caption.locations import without_locations
from pipeline.caption.thoughts import without_thoughts
from pipeline.caption.vlm import Vlm, VlmConfig
from pipeline.models.weights import WeightsNotFoundError
from pipeline.sample import Caption, Crop
from tests.random_captioners import (
    random_blip,
    random_blip2_t5,
    random_florence2,
    random_llava,
    random_paligemma,
    random_qwen2_vl,
)

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("qwen2-vl")
    random_qwen2_vl(path)
    return path


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("llava")
    random_llava(path)
    return path


def _config(folder: Path, **settings: object) -> VlmConfig:
    defaults = {"model": str(folder), "dtype": "float32", "max_new_tokens": 6, "batch_size": 8}
    return VlmConfig(**(defaults | settings))  # type: ignore[arg-type]


def _crops(count: int) -> list[Crop]:
    rng = np.random.default_rng(0)
    return [
        Crop(
            region_id=f"{number:016x}",
            pixels=rng.integers(0, 256, (3 + 9 * number, 20 + 7 * number, 3), dtype=np.uint8),
            box=(0, 0, 40, 30),
            image_width=100,
            image_height=100,
            label=None,
        )
        for number in range(count)
    ]


@pytest.mark.parametrize("model", ["qwen", "llava"])
@pytest.mark.parametrize("num_beams", [1, 3])
def test_batch_mates_change_no_caption(model: str, num_beams: int, request: pytest.FixtureRequest) -> None:
    captioner = Vlm(_config(request.getfixturevalue(model), num_beams=num_beams))
    crops = _crops(5)
    together = captioner.caption(crops, [captioner.prompt] * 5)
    alone = [captioner.caption([crop], [captioner.prompt])[0] for crop in crops]
    assert [caption.text for caption in alone] == [caption.text for caption in together]
    assert [c.score for c in alone] == pytest.approx([c.score for c in together], abs=1e-4)
    assert len({caption.text for caption in together}) > 1, "the text must depend on the picture"


def test_prompts_are_padded_on_the_left_and_batches_to_few_sizes(qwen: Path) -> None:
    captioner = Vlm(_config(qwen))
    assert isinstance(captioner, PreparingCaptioner)
    inputs = captioner.prepare(_crops(3), [captioner.prompt] * 3).inputs
    mask = inputs["attention_mask"]
    assert len(mask) == 4
    assert (mask[:, 0] == 0).any(), "images of different sizes need padding"
    assert (mask[:, -1] == 1).all()


def test_the_prompt_is_asked_and_not_part_of_the_caption(llava: Path) -> None:
    captioner = Vlm(_config(llava, prompt="a small red"))
    prepared = captioner.prepare(_crops(1), [captioner.prompt])
    asked = captioner._processor.batch_decode(prepared.inputs["input_ids"], skip_special_tokens=True)[0]
    assert "a small red" in asked
    assert asked.endswith("assistant: ")
    assert "a small red" not in captioner.generate(prepared)[0].text


@pytest.mark.parametrize("model", ["qwen", "llava"])
def test_a_score_counts_the_tokens_up_to_the_end(model: str, request: pytest.FixtureRequest) -> None:
    captioner = Vlm(_config(request.getfixturevalue(model)))
    prepared = captioner.prepare(_crops(2), [captioner.prompt] * 2)
    with torch.inference_mode():
        output = captioner._model.generate(**prepared.inputs, **captioner.config.arguments() | {"output_logits": True})
    logs = torch.stack([logits.log_softmax(-1).max(-1).values for logits in output.logits], dim=1)
    second = output.sequences[0, -6:][1].item()
    captioner._model.generation_config.eos_token_id = [second]  # now the first caption has two tokens
    first, _ = captioner.generate(prepared)
    assert first.score == pytest.approx(logs[0, :2].mean().exp().item(), abs=1e-4)


def test_a_caption_without_an_end_is_unfinished_and_one_with_an_end_is_not(qwen: Path) -> None:
    captioner = Vlm(_config(qwen))
    prepared = captioner.prepare(_crops(3), [captioner.prompt] * 3)
    with torch.inference_mode():
        rows = captioner._model.generate(**prepared.inputs, **captioner.config.arguments()).sequences[:, -6:].tolist()
    last = rows[0][-1]  # the last token that there is room for, if it is the end, ends a caption too
    captioner._model.generation_config.eos_token_id = [last]
    for row, caption in zip(rows, captioner.generate(prepared), strict=False):
        assert (caption.unfinished is None) == (last in row)
    captioner._model.generation_config.eos_token_id = [len(captioner._processor.tokenizer) + 1]
    assert all(caption.unfinished for caption in captioner.generate(prepared))


def test_thoughts_in_special_tokens_are_told_from_the_answer(qwen: Path) -> None:
    tokenizer = Vlm(_config(qwen))._processor.tokenizer
    tokenizer.add_special_tokens({"additional_special_tokens": ["[THINK]", "[/THINK]", "<|im_end|>"]})
    tags = thought_tags(tokenizer)
    assert {*tags.values()} == {"[THINK]", "[/THINK]"}
    ids = tokenizer("[THINK]a small red[/THINK]a large blue<|im_end|>")["input_ids"]
    text = decoded(ids, tokenizer, tags)
    assert "[THINK]" in text and "<|im_end|>" not in text
    assert without_thoughts(text).strip() == "a large blue"


def test_what_a_model_says_of_sampling_has_no_part(qwen: Path, tmp_path: Path) -> None:
    for file in qwen.iterdir():
        (tmp_path / file.name).symlink_to(file)
    settings = tmp_path / "generation_config.json"
    settings.unlink()
    settings.write_text(
        '{"do_sample": true, "temperature": 9.0, "top_k": 50, "repetition_penalty": 3.0, "eos_token_id": 1}'
    )
    crops = _crops(3)
    captions = [Vlm(_config(folder)).caption(crops, ["What is it?"] * 3) for folder in (qwen, tmp_path)]
    assert captions[0] == captions[1]


def test_small_crops_are_scaled_up_to_what_the_model_takes(qwen: Path) -> None:
    captioner = Vlm(_config(qwen, min_side=16))
    (tiny,) = (dataclasses.replace(crop, pixels=crop.pixels[:1, :1]) for crop in _crops(1))
    inputs = captioner.prepare([tiny], [captioner.prompt]).inputs
    assert inputs["image_grid_thw"].tolist() == [[1, 4, 4]]


def test_large_crops_take_more_places_of_a_batch(qwen: Path) -> None:
    captioner = Vlm(_config(qwen, max_side=896))
    assert isinstance(captioner, UnevenCaptioner)
    sizes = [(10, 10), (448, 448), (448, 896), (1792, 1792)]
    crops = [dataclasses.replace(_crops(1)[0], pixels=np.zeros((*size, 3), np.uint8)) for size in sizes]
    assert [captioner.places(crop) for crop in crops] == [1, 1, 2, 4]


def _sized(*sizes: tuple[int, int]) -> list[Crop]:
    first, *_ = _crops(1)
    return [dataclasses.replace(first, pixels=np.zeros((*size, 3), np.uint8)) for size in sizes]


@pytest.mark.parametrize("large_at", [0, 2, 4])
def test_a_batch_is_padded_with_its_smallest_crop(qwen: Path, large_at: int) -> None:
    captioner = Vlm(_config(qwen, min_side=8))
    sizes = [(16, 16), (16, 16), (16, 16), (16, 16)]
    sizes.insert(large_at, (64, 64))
    grids = captioner.prepare(_sized(*sizes), [captioner.prompt] * 5).inputs["image_grid_thw"]
    patches = grids.prod(dim=1).tolist()
    small, large = min(patches), max(patches)
    assert small < large
    expected = [small] * 8
    expected[large_at] = large
    assert patches == expected


def test_a_sliver_that_is_scaled_up_is_not_taken_for_the_smallest(qwen: Path) -> None:
    captioner = Vlm(_config(qwen, min_side=28))
    grids = captioner.prepare(_sized((1, 50), (30, 30), (60, 60)), [captioner.prompt] * 3).inputs["image_grid_thw"]
    assert grids[3].tolist() == grids[1].tolist()
    assert grids[0].prod() > grids[1].prod()


def test_padding_takes_no_more_places_than_a_batch_has(qwen: Path) -> None:
    captioner = Vlm(_config(qwen))
    crops = _sized(*[(448, 1176)] * 3)
    assert sum(map(captioner.places, crops)) == pytest.approx(7.875)
    assert len(captioner.prepare(crops, [captioner.prompt] * 3).inputs["image_grid_thw"]) == 3


# models without a chat template

PLAIN = {
    "blip": (random_blip, "a small"),
    "blip, not asked": (random_blip, ""),
    "florence2": (random_florence2, "<CAPTION>"),
    "paligemma": (random_paligemma, "caption en"),
}
of_their_processor = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
"""numpy's, of an array that PaliGemma's processor makes of a tensor."""


@pytest.fixture(scope="module", params=PLAIN)
def plain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> VlmConfig:
    """A model without a chat template, and the words it is asked in."""
    write, prompt = PLAIN[request.param]
    folder = tmp_path_factory.mktemp("plain")
    write(folder)
    return _config(folder, prompt=prompt)


@of_their_processor
@pytest.mark.parametrize("num_beams", [1, 3])
def test_models_without_a_chat_template_caption_each_crop_alone_as_among_others(
    plain: VlmConfig, num_beams: int
) -> None:
    captioner = Vlm(dataclasses.replace(plain, num_beams=num_beams))
    crops = _crops(5)
    together = captioner.caption(crops, [captioner.prompt] * 5)
    alone = [captioner.caption([crop], [captioner.prompt])[0] for crop in crops]
    assert [caption.text for caption in alone] == [caption.text for caption in together]
    assert [c.score for c in alone] == pytest.approx([c.score for c in together], abs=1e-4)
    assert len({caption.text for caption in together}) > 1, "the text must depend on the picture"
    assert all(0 < (caption.score or 0) <= 1 for caption in together)


@of_their_processor
def test_the_prompt_is_given_as_it_is_and_no_part_of_the_caption(
    plain: VlmConfig, caplog: pytest.LogCaptureFixture
) -> None:
    captioner = Vlm(plain)
    prepared = captioner.prepare(_crops(2), [captioner.prompt] * 2)
    asked = captioner._processor.batch_decode(prepared.inputs["input_ids"], skip_special_tokens=True)
    task = {"<CAPTION>": "What does the image describe?"}  # Florence-2's processor has words for its tasks
    assert [text.strip() for text in asked] == [task.get(plain.prompt, plain.prompt)] * 2
    (first, _) = captioner.generate(prepared)
    assert first.text and not (plain.prompt and first.text.startswith(plain.prompt))
    assert not caplog.records, "its processor complains of how it is called"


@of_their_processor
def test_an_end_that_a_model_forces_at_the_limit_does_not_hide_a_cut(plain: VlmConfig, tmp_path: Path) -> None:
    for file in Path(plain.model).iterdir():
        (tmp_path / file.name).symlink_to(file)
    settings = tmp_path / "generation_config.json"
    said = json.loads(settings.read_text()) if settings.exists() else {}
    settings.unlink(missing_ok=True)
    settings.write_text(json.dumps(said | {"forced_eos_token_id": said.get("eos_token_id", 1)}))
    captioner = Vlm(dataclasses.replace(plain, model=str(tmp_path), max_new_tokens=3))
    captions = captioner.caption(_crops(3), [captioner.prompt] * 3)
    assert all(caption.unfinished for caption in captions)


def test_blip_ends_at_its_own_end(tmp_path: Path) -> None:
    random_blip(tmp_path)
    captioner = Vlm(_config(tmp_path, prompt="", max_new_tokens=20))
    captioner._model.text_decoder.cls.predictions.decoder.bias.data[3] = 50.0
    (caption,) = captioner.caption(_crops(1), [""])
    assert (caption.text, caption.unfinished) == ("", None)
    assert caption.score == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("prompt", "answer", "words"),
    [
        ("<CAPTION>", "a red dog", "a red dog"),
        ("<DETAILED_CAPTION>", "a dog<loc_1><loc_2><loc_3><loc_4> on a mat", "a dog on a mat"),
        ("<REGION_TO_DESCRIPTION><loc_1><loc_2><loc_3><loc_4>", "a mat<loc_9><loc_9><loc_99><loc_99>", "a mat"),
        (
            "<OD>",
            "dog<loc_1><loc_2><loc_30><loc_40>cat<loc_5><loc_5><loc_6><loc_6>dog<loc_7><loc_7><loc_8><loc_8>",
            "dog, cat",
        ),
        ("<OD>", "nothing of the form", ""),
        ("What is this?", "a <b> tag", "a <b> tag"),
    ],
)
def test_places_in_an_answer_are_read_by_the_model_s_own_processor(
    florence: Vlm, prompt: str, answer: str, words: str
) -> None:
    tokens = florence._processor.tokenizer(answer + "</s>", add_special_tokens=False)["input_ids"]
    text = decoded(tokens, florence._processor.tokenizer, florence._tags)
    assert text == answer
    assert without_locations(text, florence._processor, prompt=prompt) == words


@pytest.fixture(scope="module")
def florence(tmp_path_factory: pytest.TempPathFactory) -> Vlm:
    folder = tmp_path_factory.mktemp("florence2")
    random_florence2(folder)
    return Vlm(_config(folder, prompt="<CAPTION>"))


def test_an_answer_of_places_is_cleaned_on_its_way(florence: Vlm, monkeypatch: pytest.MonkeyPatch) -> None:
    said = [Caption(text="dog<loc_1><loc_2><loc_3><loc_4>", score=0.5)] * 2
    monkeypatch.setattr("pipeline.caption.vlm.captions_of", lambda *_, **__: said)
    captions = florence.caption(_crops(2), [florence.prompt] * 2)
    assert captions == [Caption(text="dog", score=0.5)] * 2


def test_places_of_a_model_whose_processor_knows_nothing_of_them_are_left_out(tmp_path: Path) -> None:
    random_paligemma(tmp_path)
    processor = Vlm(_config(tmp_path, prompt="detect dog"))._processor
    answer = "<loc0001><loc0002><loc0100><loc1023> dog ; <loc0001><loc0002><loc0100><loc1023><seg001> big cat"
    assert without_locations(answer, processor, prompt="detect dog") == "dog ; big cat"
    assert without_locations("two  dogs", processor, prompt="caption en") == "two  dogs"


def test_a_model_without_a_chat_template_is_asked_in_its_own_words(tmp_path: Path) -> None:
    random_blip(tmp_path)
    with pytest.raises(ValueError, match=r"no chat template, so .* give --caption\.prompt '' or 'a photo of' .*models"):
        Vlm(_config(tmp_path))


def test_a_blip2_has_a_captioner_of_its_own(tmp_path: Path) -> None:
    random_blip2_t5(tmp_path)
    with pytest.raises(ValueError, match="it is a BLIP-2; give --captioner blip2"):
        Vlm(_config(tmp_path, prompt="a photo of"))


def test_remote_code_must_be_pinned(qwen: Path) -> None:
    for revision in (None, "main", COMMIT[:8]):
        with pytest.raises(ValueError, match=r"--caption\.revision"):
            Vlm.weights(VlmConfig(model="some/model", trust_remote_code=True, revision=revision))
    with pytest.raises(WeightsNotFoundError):  # pinned, so it is looked for
        Vlm.weights(VlmConfig(model="./nowhere", trust_remote_code=True, revision=COMMIT))
    named = Vlm.weights(_config(qwen, trust_remote_code=True))
    assert named["model"].startswith("sha256:")


def test_remote_code_is_part_of_the_fingerprint(qwen: Path, tmp_path: Path) -> None:
    for file in qwen.iterdir():
        (tmp_path / file.name).symlink_to(file)
    config = _config(tmp_path, trust_remote_code=True)
    before = Vlm.weights(config)
    (tmp_path / "modeling_own.py").write_text("CHANGED = True\n")
    after = Vlm.weights(config)
    assert before["model"] == after["model"]
    assert before["code"] != after["code"]
    assert "code" not in Vlm.weights(_config(tmp_path))


def test_code_that_comes_with_a_model_has_terms_that_nobody_knows(qwen: Path) -> None:
    plain = Vlm.licenses(VlmConfig())
    config = VlmConfig(trust_remote_code=True, revision=COMMIT, license="MIT")
    (own,) = set(Vlm.licenses(config)) - set(plain)
    assert (own.kind, own.license, own.permissive) == ("code", "unknown", False)
    assert own.what == "the code of Qwen/Qwen2-VL-2B-Instruct"
    named = [entry.what for entry in Vlm.licenses(_config(qwen, trust_remote_code=True))]
    assert f"the code of {qwen.name}" in named


def test_no_mini_ships_for_it() -> None:
    with pytest.raises(WeightsNotFoundError, match=r"--caption\.model mini"):
        Vlm.weights(VlmConfig(model="mini"))


def test_code_of_the_model_s_own_is_not_run_unasked(qwen: Path, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").symlink_to(qwen / "model.safetensors")
    (tmp_path / "config.json").write_text(
        '{"model_type": "nobody-knows", "auto_map": {"AutoConfig": "own.Config", "AutoProcessor": "own.Processor"}}'
    )
    (tmp_path / "own.py").write_text("raise SystemExit('code was run')\n")
    with pytest.raises(ValueError, match=r"--caption\.trust-remote-code .*--captioner openai"):
        Vlm(_config(tmp_path))


@pytest.mark.parametrize("settings", [{"min_side": 0}, {"min_side": 3000}, {"num_beams": 0}])
def test_settings_that_cannot_work_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=rf"--caption\.{next(iter(settings)).replace('_', '-')}"):
        VlmConfig(**settings)  # type: ignore[arg-type]
