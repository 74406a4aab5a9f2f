"""The minis' own parts, on random weights: tokens, inputs, losses, and a few steps through the whole way."""

import dataclasses
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("default")

from safetensors.torch import load_file  # noqa: E402

from pipeline.minis.loop import save_half  # noqa: E402
from pipeline.models.state_dict import WeightsError, fit_strictly  # noqa: E402
from pipeline.scenes.words import every_region_caption, parse_region_caption  # noqa: E402
from tests.builders import decoded_image  # noqa: E402


def test_weights_return_in_half_precision(tmp_path):
    model = torch.nn.BatchNorm1d(3)
    model.num_batches_tracked += 70_000
    torch.nn.init.normal_(model.weight)
    save_half(model.state_dict(), tmp_path / "w.safetensors")
    loaded = torch.nn.BatchNorm1d(3)
    fit_strictly(loaded, load_file(tmp_path / "w.safetensors"), tmp_path / "w.safetensors")
    assert torch.equal(loaded.weight, model.weight.half().float())
    assert loaded.weight.dtype == torch.float32
    assert loaded.num_batches_tracked == 70_000


@pytest.mark.parametrize("model", [torch.nn.Linear(3, 2), torch.nn.Linear(2, 2, bias=False)])
def test_weights_that_do_not_fit_are_refused(tmp_path, model):
    save_half(torch.nn.Linear(2, 2).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=r"w\.safetensors does not fit Linear: 1 keys"):
        fit_strictly(model, load_file(tmp_path / "w.safetensors"), tmp_path / "w.safetensors")


def test_weights_beyond_half_precision_are_refused(tmp_path):
    with pytest.raises(ValueError, match="big has values beyond fp16"):
        save_half({"big": torch.tensor([1e6])}, tmp_path / "w.safetensors")


class TestCaptioner:
    captioner = pytest.importorskip("pipeline.minis.captioner")

    def test_crops_keep_their_scale(self):
        crop = np.full((10, 20, 3), 255, np.uint8)
        values = self.captioner.pixels_to_input(self.captioner.build_processor(), [crop])
        white = (values[0, 0] == values.max()).nonzero()
        assert values.shape == (1, 3, 80, 80)
        assert white.min(dim=0).values.tolist() == [35, 30] and white.max(dim=0).values.tolist() == [44, 49]

    def test_every_caption_takes_five_tokens_and_comes_back(self):
        tokenizer = self.captioner.build_processor().tokenizer
        for caption in every_region_caption()[::7]:
            tokens = tokenizer(caption, add_special_tokens=False)["input_ids"]
            assert len(tokens) == 5
            assert tokenizer.decode(tokens) == caption

    def test_any_prompt_can_be_read(self):
        tokenizer = self.captioner.build_processor().tokenizer
        text = "Describe this image in one sentence: é?"
        assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text

    def test_a_few_steps_give_a_checkpoint_in_the_hubs_layout(self, tmp_path):
        recipe = dataclasses.replace(self.captioner.CaptionerRecipe(), steps=2, batch_size=3, warmup_steps=1)
        self.captioner.train(recipe, tmp_path)
        from transformers import AutoModelForImageTextToText, AutoProcessor

        folder = tmp_path / "checkpoint"
        model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
        processor = AutoProcessor.from_pretrained(folder)
        assert (type(model).__name__, type(processor).__name__) == ("Blip2ForConditionalGeneration", "Blip2Processor")
        crops = [np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)]
        captions = self.captioner.caption(model, processor, crops)
        assert captions == self.captioner.caption(*self.captioner.load(folder), crops)
        assert sum(file.stat().st_size for file in folder.iterdir()) < 8_000_000


class TestClip:
    clip = pytest.importorskip("pipeline.minis.clip")

    def test_equal_captions_match_each_other(self):
        logits = torch.tensor([[0.0, 9.0], [0.0, 9.0]])
        loss = self.clip._matching_loss(logits, ["b", "b"], ["a", "b"])
        by_row = np.log(1 + np.exp(-9))
        by_column = np.log(2)
        assert loss.item() == pytest.approx((by_row + by_column) / 2, rel=1e-4)

    def test_negatives_count_in_the_rows_direction_only(self):
        logits = torch.tensor([[1.0, 1.0]])
        assert self.clip._matching_loss(logits, ["a"], ["a", "n"]).item() == pytest.approx(np.log(2) / 2)

    def test_near_misses_differ_in_one_word_and_are_never_held_out(self):
        from pipeline.minis.batches import crops_of_step

        crops = crops_of_step(0, 0, 20)
        captions = self.clip._with_near_misses(crops, np.random.default_rng(0))
        own = list(dict.fromkeys(crop.caption for crop in crops))
        assert captions[: len(own)] == own and len(captions) == len(set(captions)) > 2 * len(own)
        for miss in captions[len(own) :]:
            words = [set(zip(range(5), miss.split(), strict=True)) - set(enumerate(caption.split())) for caption in own]
            assert min(map(len, words)) == 1
            assert not parse_region_caption(miss).held_out

    def test_a_few_steps_give_a_checkpoint_that_open_clip_opens(self, tmp_path):
        recipe = dataclasses.replace(self.clip.ClipRecipe(), steps=2, batch_size=3, scenes_per_step=2, warmup_steps=1)
        self.clip.train(recipe, tmp_path)
        clip = pytest.importorskip("pipeline.caption.clip")
        loaded = clip.load(tmp_path / "checkpoint")
        crops = [np.zeros((20, 10, 3), np.uint8), np.full((5, 9, 3), 200, np.uint8)]
        image_features = clip.encode_crops(loaded, crops)
        text_features = clip.encode_captions(loaded, ["a small red solid star"])
        assert image_features.shape == (2, 128) and text_features.shape == (1, 128)
        assert torch.allclose(image_features.norm(dim=1), torch.ones(2), atol=1e-5)
        assert loaded.model.logit_scale.dtype == torch.float32

    def test_the_longest_caption_fits_the_context(self, tmp_path):
        self.clip.prepare(tmp_path)
        tokenizer = self.clip.open_clip.get_tokenizer(f"local-dir:{tmp_path}")
        longest = (
            "two large blue circles, three small red rings, two small pink stars and two large white crosses; "
            "the blue circles are right of the white crosses"
        )
        tokens = tokenizer([longest])[0].tolist()
        assert tokens[-1] in (0, 1) and tokens.count(1) == 1


class TestDetector:
    detector = pytest.importorskip("pipeline.minis.detector")

    def test_a_few_steps_give_a_checkpoint_that_the_proposer_opens(self, tmp_path):
        recipe = dataclasses.replace(self.detector.DetectorRecipe(), steps=2, batch_size=2, warmup_steps=1)
        self.detector.train(recipe, tmp_path)
        from pipeline.propose.detr import Detr, DetrConfig

        proposer = Detr(DetrConfig(model=str(tmp_path / "checkpoint"), min_score=0))
        (found,) = proposer.propose([decoded_image(np.zeros((256, 256, 3), np.uint8))])
        assert found.boxes.shape == (30, 4) and {*found.labels} == {"object"}
        assert json.loads((tmp_path / "curve.jsonl").read_text().splitlines()[-1])["step"] == 2
        assert sum(file.stat().st_size for file in (tmp_path / "checkpoint").iterdir()) < 2_000_000

    def test_training_sees_the_pixels_that_the_processor_makes(self):
        from pipeline.minis.batches import scenes_of_step

        scenes = scenes_of_step(0, 0, 2)
        made = self.detector.build_processor()(images=[scene.pixels for scene in scenes], return_tensors="pt")
        assert torch.allclose(self.detector._images(scenes), made["pixel_values"], atol=1e-6)

    def test_labels_are_centres_and_sides_in_shares_of_the_scene(self):
        from pipeline.minis.batches import scenes_of_step

        (scene,) = scenes_of_step(0, 0, 1)
        labels = self.detector._labels(scene)
        assert labels["class_labels"].tolist() == [0] * len(scene.boxes)
        for (x, y, width, height), box in zip(labels["boxes"].tolist(), scene.boxes.tolist(), strict=True):
            corners = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
            assert [256 * one for one in corners] == pytest.approx(box, abs=1e-3)
