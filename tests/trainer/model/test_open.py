"""Models by name and file; the original EVA-CLIP layout in and out, nothing missing or left over."""

import json
import urllib.request
from email.message import Message
from pathlib import Path
from urllib.error import HTTPError, URLError

import open_clip
import pytest
import safetensors.torch
import torch

from tests.trainer.eva_names import EVA02_B_16, EVA02_L_14_336, TINY
from tests.trainer.towers import EVA, VIT, random_weights
from trainer.errors import TrainingError
from trainer.hyperparameters import ModelSettings
from trainer.model.eva_weights import to_open_clip, to_original
from trainer.model.open import load_model, load_weights
from trainer.model.pretrained import check_available


def original_state(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def test_names_are_those_of_the_published_checkpoints():
    assert (len(EVA02_B_16), len(EVA02_L_14_336)) == (436, 712)


@pytest.mark.parametrize(("name", "shapes"), [("EVA02-B-16", EVA02_B_16), ("EVA02-L-14-336", EVA02_L_14_336)])
def test_published_names_fit_open_clip(name, shapes):
    # On the meta device: names and shapes of the real models, without their 430 M numbers.
    with torch.device("meta"):
        model = open_clip.create_model(name, device="meta")
        state = {key: torch.empty(shape) for key, shape in shapes.items()}
    wanted = {key: tensor.shape for key, tensor in model.state_dict().items()}
    assert {key: tensor.shape for key, tensor in to_open_clip(state, model).items()} == wanted


def test_an_original_file_loads(tmp_path):
    path = tmp_path / "original.pt"
    state = original_state(TINY)
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, path)
    loaded = load_model(ModelSettings(model=EVA, pretrained=str(path)))
    trunk = loaded.clip.visual.trunk
    assert torch.equal(trunk.blocks[1].attn.q_proj.bias, state["visual.blocks.1.attn.q_bias"])
    assert torch.equal(trunk.blocks[2].mlp.fc2.weight, state["visual.blocks.2.mlp.w3.weight"])
    assert torch.equal(loaded.clip.text.ln_final.weight, state["text.ln_final.weight"])


def test_the_original_layout_comes_back():
    loaded = load_model(ModelSettings(model=EVA))
    random_weights(loaded.clip)
    original = to_original(loaded.clip.state_dict(), loaded.clip)
    assert {name: tuple(tensor.shape) for name, tensor in original.items()} == TINY
    again = to_open_clip(original, loaded.clip)
    assert all(torch.equal(again[name], tensor) for name, tensor in loaded.clip.state_dict().items())


def test_rotation_tables_are_those_of_the_original():
    loaded = load_model(ModelSettings(model=EVA))
    tables = to_original(loaded.clip.state_dict(), loaded.clip)
    # Patch (row 2, column 5) of 14 x 14, at positions row / 14 * 16; head width 16: 4 frequencies an axis, each twice.
    frequencies = torch.tensor([10000.0 ** -(2 * i / 8) for i in range(4)])
    angles = torch.cat([position / 14 * 16 * frequencies for position in (2, 5)]).repeat_interleave(2)
    assert torch.allclose(tables["visual.rope.freqs_cos"][2 * 14 + 5], angles.cos(), atol=1e-5)
    assert torch.allclose(tables["visual.blocks.1.attn.rope.freqs_sin"][2 * 14 + 5], angles.sin(), atol=1e-5)


def test_other_weights_are_refused_by_name(tmp_path):
    state = original_state(TINY)
    del state["visual.blocks.1.attn.v_bias"]
    state["visual.extra"] = torch.zeros(1)
    with pytest.raises(TrainingError, match=r"given.*missing visual.trunk.blocks.1.attn.v_proj.bias.*extra"):
        load_weights(load_model(ModelSettings(model=EVA)).clip, state, "given")
    with pytest.raises(TrainingError, match="EVA02 models"):
        load_weights(load_model(ModelSettings(model=VIT)).clip, original_state(TINY), "given")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_open_clip_files_load(tmp_path, suffix):
    state = load_model(ModelSettings(model=VIT), seed=7).clip.state_dict()
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pt":
        torch.save(state, path)
    else:
        safetensors.torch.save_file(state, path)
    loaded = load_model(ModelSettings(model=VIT, pretrained=str(path)), seed=8)
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.clip.state_dict().items())


class _Code:
    def __reduce__(self):
        return (print, ("run",))


def test_a_file_that_holds_code_is_not_run(tmp_path, capsys):
    path = tmp_path / "weights.pt"
    torch.save({"a": _Code()}, path)
    with pytest.raises(TrainingError, match="without running its code"):
        load_model(ModelSettings(model=VIT, pretrained=str(path)))
    assert capsys.readouterr().out == ""


def test_random_weights_are_the_seed_s():
    first, again, other = (load_model(ModelSettings(model=VIT), seed=seed).clip.state_dict() for seed in (1, 1, 2))
    name = "visual.conv1.weight"
    assert torch.equal(first[name], again[name])
    assert not torch.equal(first[name], other[name])


def test_a_local_folder(tmp_path):
    config = {"model_cfg": open_clip.get_model_config(VIT), "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    state = load_model(ModelSettings(model=VIT), seed=7).clip.state_dict()
    safetensors.torch.save_file(state, tmp_path / "open_clip_model.safetensors")
    loaded = load_model(ModelSettings(model=f"local-dir:{tmp_path}"))
    assert (loaded.mean, loaded.std) == ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    assert torch.equal(loaded.clip.visual.conv1.weight, state["visual.conv1.weight"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (ModelSettings(model="no-such"), "no such model of open_clip"),
        (
            ModelSettings(model="ViT-B-16", pretrained="no_tag"),
            "no weights .no_tag. of it; give by --pretrained a file, None .*, or one of openai",
        ),
        (
            ModelSettings(model="fineclip-mini", pretrained="no_tag"),
            "no weights .no_tag. of it; give by --pretrained a file",
        ),
        (ModelSettings(model=VIT, pretrained="no/file.pt"), "no such file"),
        (ModelSettings(model="local-dir:nowhere"), "nowhere"),
        (ModelSettings(model=VIT, image_size=225), "take 224 x 224"),
        (ModelSettings(model=VIT, image_size=(224, 100)), "take 224 x 96"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_loaded_is_named(settings, message):
    with pytest.raises(TrainingError, match=message):
        load_model(settings)


def test_the_bundled_mini_loads():
    assert Path(load_model(ModelSettings(model="fineclip-mini", image_size=96, crop_size=96)).name).name


@pytest.mark.parametrize(
    ("known", "named"),
    [
        ({"hf_hub": "somebody/tiny/"}, "somebody/tiny/resolve/main/open_clip_model.safetensors"),
        ({"hf_hub": "somebody/tiny/weights.pt"}, "somebody/tiny/resolve/main/weights.pt"),
        ({"url": "http://localhost/weights.pt"}, "http://localhost/weights.pt"),
    ],
)
def test_weights_out_of_reach_are_asked_for_once_and_named(known, named, monkeypatch, tmp_path):
    asked = []

    def unreachable(request, timeout):
        asked.append(request.full_url)
        raise URLError("no route to host")

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda model, tag: known)
    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    monkeypatch.setattr(open_clip, "create_model", lambda *_, **__: pytest.fail("downloads were tried"))
    with pytest.raises(TrainingError, match=rf"no route to host.*Download \S*{named} .*--pretrained FILE"):
        load_model(ModelSettings(model=VIT, pretrained="a_tag"))
    assert len(asked) == 1


def test_weights_that_are_cached_or_within_reach_are_open_clip_s_affair(monkeypatch, tmp_path):
    def answers(request, timeout):
        raise HTTPError(request.full_url, 401, "not for you", Message(), None)

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda model, tag: {"url": "http://localhost/weights.pt"})
    monkeypatch.setattr(urllib.request, "urlopen", answers)
    check_available(VIT, "a_tag")
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: pytest.fail("asked for what is here"))
    (tmp_path / ".cache" / "clip").mkdir(parents=True)
    (tmp_path / ".cache" / "clip" / "weights.pt").write_bytes(b"")
    check_available(VIT, "a_tag")


def test_weights_of_another_activation_are_refused():
    with pytest.raises(TrainingError, match=r"with QuickGELU.*--model ViT-B-16-quickgelu"):
        check_available("ViT-B-16", "openai")
