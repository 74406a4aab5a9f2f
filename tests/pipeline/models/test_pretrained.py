"""What of a model's weights is not there is never drawn at random, whatever asks for the model."""

import re
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import ClassVar

import pytest
from safetensors.torch import load_file, save_file

from pipeline.caption.blip2 import Blip2, Blip2Config
from pipeline.caption.vlm import Vlm, VlmConfig
from pipeline.models.pretrained import from_pretrained
from pipeline.models.state_dict import WeightsError
from pipeline.models.weights import ModelFiles
from pipeline.propose.detr import Detr, DetrConfig
from pipeline.propose.grounding import Grounding, GroundingConfig
from pipeline.propose.sam import Sam, SamConfig
from pipeline.propose.sam3 import Sam3, Sam3Config
from tests.random_captioners import random_blip, random_florence2, random_llava, random_paligemma, random_qwen2_vl
from tests.random_detectors import random_detector
from tests.random_grounders import random_grounder, random_sam3
from tests.random_models import random_blip2, random_sam
from tests.random_sam import random_sam2

pytestmark = pytest.mark.filterwarnings("default")  # of transformers, about the models that it is asked for

Load = Callable[[Path], object]


def _vlm(folder: Path) -> object:
    return Vlm(VlmConfig(model=str(folder), prompt="caption en", dtype="float32"))


MODELS: dict[str, tuple[Callable[[Path], None], Load, str]] = {
    "detr": (lambda f: random_detector(f, "rf_detr"), lambda f: Detr(DetrConfig(model=str(f))), "--propose.model"),
    "grounding": (
        lambda f: random_grounder(f, "grounding-dino"),
        lambda f: Grounding(GroundingConfig(model=str(f))),
        "--propose.model",
    ),
    "sam": (random_sam, lambda f: Sam(SamConfig(model=str(f))), "--propose.model"),
    "sam2": (random_sam2, lambda f: Sam(SamConfig(model=str(f))), "--propose.model"),
    "sam3": (random_sam3, lambda f: Sam3(Sam3Config(model=str(f), phrases=str(f / "phrases.txt"))), "--propose.model"),
    "blip2": (random_blip2, lambda f: Blip2(Blip2Config(model=str(f), dtype="float32")), "--caption.model"),
    "qwen2-vl": (random_qwen2_vl, _vlm, "--caption.model"),
    "llava": (random_llava, _vlm, "--caption.model"),
    "blip": (random_blip, _vlm, "--caption.model"),
    "florence-2": (random_florence2, _vlm, "--caption.model"),
    "paligemma": (random_paligemma, _vlm, "--caption.model"),
}


@pytest.mark.parametrize("model", MODELS)
def test_weights_that_are_missing_or_of_another_shape_are_an_error(model: str, tmp_path: Path) -> None:
    write, load, flag = MODELS[model]
    write(tmp_path)
    (tmp_path / "phrases.txt").write_text("cat\n")
    load(tmp_path)
    file = tmp_path / "model.safetensors"
    state = {name: tensor.clone() for name, tensor in load_file(file).items()}  # the file, a map of it, is written over
    lost = max((name for name in state if "layers.0." in name or "layer.0." in name), key=lambda n: state[n].numel())
    save_file({name: value for name, value in state.items() if name != lost}, file, metadata={"format": "pt"})
    tail = re.escape(".".join(lost.split(".")[-3:]))
    with pytest.raises(WeightsError, match=rf"^{flag} {tmp_path.name}: .* missing or of another shape, .*{tail}"):
        load(tmp_path)
    save_file(state | {lost: state[lost][:-1].clone()}, file, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=rf"^{flag} {tmp_path.name}: "):
        load(tmp_path)


class FakeModel:
    """Stands for a class of transformers' whose file lacks `missing`."""

    missing: ClassVar[set[str]] = set()

    @classmethod
    def from_pretrained(cls, path: Path, **arguments: object) -> tuple["FakeModel", dict[str, set[str]]]:
        return cls(), {"missing_keys": cls.missing, "mismatched_keys": set()}


@pytest.mark.parametrize(("name", "is_needed"), [("num_batches_tracked", False), ("running_mean", True)])
def test_a_counter_of_training_may_be_missing(name: str, is_needed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeModel, "missing", {f"backbone.bn1.{name}"})
    files = ModelFiles(path=Path("folder"), name="folder", revision=None, sha256=None)
    with pytest.raises(WeightsError) if is_needed else nullcontext():
        assert isinstance(from_pretrained(FakeModel, files, flag="--propose.model"), FakeModel)
