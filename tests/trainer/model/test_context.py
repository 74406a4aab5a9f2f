"""Longer texts: positions stretched, the first 20 kept; captions that are cut are counted."""

import json

import open_clip
import pyarrow as pa
import pytest
import torch

from tests.trainer.runs import write_data
from tests.trainer.towers import VIT
from trainer.cli.command import train_main
from trainer.errors import TrainingError
from trainer.hyperparameters import ModelSettings
from trainer.model.context import Cut, count_cut, stretched
from trainer.model.open import load_model


def test_positions_are_stretched_as_long_clip_does():
    own = torch.randn(77, 4, generator=torch.Generator().manual_seed(0))
    longer = stretched(own, 248)
    assert longer.shape == (248, 4)
    assert torch.equal(longer[:20], own[:20])
    for place in range(20, 76):  # four new ones for each old one, on the straight line to the next
        for part in range(4):
            expected = own[place] + part / 4 * (own[place + 1] - own[place])
            assert torch.allclose(longer[20 + 4 * (place - 20) + part], expected, atol=1e-6)
    assert torch.allclose(longer[247], own[76] + 3 / 4 * (own[76] - own[75]), atol=1e-6)


def long_model(folder, length: int = 77) -> str:
    """Let open_clip know a tiny model with CLIP's 77 tokens."""
    text = {"context_length": length, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1}
    vision = {"image_size": 32, "patch_size": 16, "width": 32, "head_width": 16, "layers": 2}
    (folder / "tiny-long.json").write_text(json.dumps({"embed_dim": 8, "vision_cfg": vision, "text_cfg": text}))
    open_clip.add_model_config(folder)
    return "tiny-long"


def test_a_short_text_of_a_longer_model_is_what_it_was(tmp_path):
    settings = {"model": long_model(tmp_path), "image_size": 32}
    short, longer = (load_model(ModelSettings(**settings, context_length=n)) for n in (None, 248))
    assert longer.tokenize(["a"]).shape == (1, 248)
    text = ["a red star on a green field"]
    with torch.no_grad():
        before, after = (model.clip.encode_text(model.tokenize(text)) for model in (short, longer))
    assert torch.allclose(before, after, atol=1e-5)
    assert longer.config["model_cfg"]["text_cfg"]["context_length"] == 248
    with pytest.raises(TrainingError, match="the model's own is 77"):
        load_model(ModelSettings(**settings, context_length=60))


def test_captions_that_are_cut_are_counted():
    tokenize = open_clip.get_tokenizer(VIT)  # 16 tokens, two of them marks
    fitting, longer = " ".join(["cat"] * 14), " ".join(["cat"] * 15)
    texts = pa.chunked_array([["a", fitting, longer], [longer + " cat", "x" * 20]])
    assert count_cut(texts, tokenize, 16) == Cut(2, 5, False)
    assert count_cut(pa.chunked_array([[]], pa.string()), tokenize, 16) == Cut(0, 0, False)


def test_a_run_says_so_and_its_model_keeps_its_length(tmp_path, capsys):
    folder = write_data(tmp_path / "data", (4,))
    flags = ["--model", long_model(tmp_path, 22), "--recipe", "mini", "--image-size", "32", "--crop-size", "16"]
    flags += ["--epochs", "1", "--workers", "0", "--threads", "1", "--device", "cpu", "--context-length", "40"]
    assert train_main([folder, "--out", str(tmp_path / "run"), *flags]) == 0
    assert "are cut" not in capsys.readouterr().err
    model = load_model(ModelSettings(model=f"local-dir:{tmp_path / 'run' / 'model'}", image_size=32))
    assert model.tokenize(["a"]).shape == (1, 40)
