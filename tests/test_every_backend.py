"""Each proposer with each captioner by command, on the CPU: minis where there are, else small random weights.

What random weights say means nothing; that it comes out whole, balanced and strictly decodable proves the plumbing.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.caption import CAPTIONERS, captioner_class
from pipeline.propose import PROPOSERS, proposer_class
from schemas.dataset import Dataset
from tests.builders import check_balance, run
from tests.caption_server import FakeCaptionServer
from tests.random_captioners import (
    random_blip,
    random_blip2_t5,
    random_florence2,
    random_llava,
    random_paligemma,
    random_qwen2_vl,
)
from tests.random_detectors import DETECTORS, random_detector
from tests.random_grounders import GROUNDERS, random_grounder, random_sam3
from tests.random_models import random_fastsam, random_libreyolo, random_rpn, random_sam, random_yolov9
from tests.random_sam import random_edgetam, random_sam2, register_tiny, write_in_authors_layout

pytestmark = pytest.mark.filterwarnings("default")

Flags = dict[str, tuple[str, ...]]


@pytest.fixture(scope="module")
def proposers(tmp_path_factory: pytest.TempPathFactory) -> Flags:
    folder = tmp_path_factory.mktemp("proposers")
    fastsam = folder / "FastSAM-s.pt"
    fastsam_sha256 = random_fastsam(fastsam)
    yolov9 = folder / "yolov9t.safetensors"
    random_libreyolo(yolov9)
    rpn = "fasterrcnn_mobilenet_v3_large_320_fpn"
    random_rpn(folder / "rpn.pth", model=rpn)
    random_sam(folder / "sam")
    random_sam3(folder / "sam3")
    random_detector(folder / "detr", "rf_detr")
    random_grounder(folder / "grounding", "grounding-dino")
    few = ("--propose.max-proposals", "3")
    return {
        "manual": (),
        "selective_search": ("--propose.working-side", "64"),
        "yolov9": (
            *("--propose.model", str(yolov9), "--propose.engine", "libreyolo", "--propose.image-side", "128"),
            *("--propose.min-score", "1e-6", *few),
        ),
        "detr": ("--propose.model", "mini"),
        "fastsam": (
            *("--propose.model", str(fastsam), "--propose.sha256", fastsam_sha256, "--propose.image-side", "128"),
            *("--propose.min-score", "1e-6", *few),
        ),
        "rpn": (
            *("--propose.model", rpn, "--propose.weights", str(folder / "rpn.pth"), "--propose.image-side", "128"),
            *("--propose.min-score", "0", *few),
        ),
        "sam": (
            *("--propose.model", str(folder / "sam"), "--propose.points-per-side", "2", "--propose.min-score", "0"),
            *("--propose.min-stability", "0", *few),
        ),
        **{
            name: ("--propose.model", str(folder / name), "--propose.min-score", "0", *few)
            for name in ("detr", "grounding", "sam3")
        },
    }


@pytest.fixture
def tiny_of_the_authors(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package of Segment Anything's authors knows a small model, beside ViT-B, L and H."""
    register_tiny(monkeypatch)


@pytest.fixture(scope="module")
def captioners(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flags]:
    folder = tmp_path_factory.mktemp("captioners")
    random_qwen2_vl(folder / "vlm")
    server = FakeCaptionServer()
    server.start()
    yield {
        "rule": (),
        "label": (),
        "given": (),
        "blip2": ("--caption.model", "mini", "--caption.dtype", "float32", "--caption.max-new-tokens", "12"),
        "vlm": (
            "--caption.model",
            str(folder / "vlm"),
            "--caption.dtype",
            "float32",
            "--caption.max-new-tokens",
            "4",
            "--caption.unfinished",
            "keep",
        ),
        "openai": ("--caption.url", server.url, "--caption.patience-s", "5"),
        "clip_rule": ("--caption.model", "mini", "--caption.concepts", "scenes", "--caption.min-confidence", "0"),
    }
    server.stop()


_PAIRS = [
    (proposer, captioner)
    for proposer in PROPOSERS
    for captioner in CAPTIONERS
    if proposer_class(proposer).gives_labels or not captioner_class(captioner).needs_labels
    if proposer == "manual" or not captioner_class(captioner).needs_source
]


@pytest.mark.parametrize(("proposer", "captioner"), _PAIRS)
def test_every_proposer_works_with_every_captioner(
    proposer: str, captioner: str, proposers: Flags, captioners: Flags, tmp_path: Path
) -> None:
    flags = ("--proposer", proposer, *proposers[proposer], "--captioner", captioner, *captioners[captioner])
    marker = _annotated(tmp_path / "out", *flags)
    assert marker.images.ok == 2
    assert marker.regions.inputs > 0
    assert marker.regions.ok + marker.regions.num_dead + marker.regions.num_filtered == marker.regions.inputs
    names = (marker.provenance["proposer"]["name"], marker.provenance["captioner"]["name"])
    assert names == (proposer, captioner)
    # What random weights may say, and boxes of no width; the classes of a random detector have names or none.
    dead = {*marker.regions.dead} - {"repeated_caption", "empty_caption", "invalid_box"}
    assert not dead


@pytest.mark.parametrize("architecture", [*DETECTORS, *GROUNDERS])
def test_every_architecture_that_transformers_opens_works(architecture: str, tmp_path: Path) -> None:
    proposer = "detr" if architecture in DETECTORS else "grounding"
    (random_detector if architecture in DETECTORS else random_grounder)(tmp_path / "model", architecture)
    flags = ("--propose.model", tmp_path / "model", "--propose.min-score", "0", "--propose.max-proposals", "3")
    marker = _annotated(tmp_path / "out", "--proposer", proposer, *flags, "--captioner", "rule")
    assert marker.regions.inputs > 0
    assert marker.provenance["proposer"]["golden_answers"] is not None


def _annotated(output: Path, *flags: str | Path) -> Any:
    """The marker of two scenes, annotated."""
    outcome = run(
        *("annotate", "scenes:2?split=test", output, "--profile", "weightless", "--device", "cpu"),
        *flags,
        *("--select.min-side", "1", "--max-dead", "1"),
    )
    assert outcome.code == 0, outcome
    check_balance(output)
    return next(iter(Dataset.open(output).markers.values()))


SAMS = {"sam2": random_sam2, "edgetam": random_edgetam, "of its authors": None}
_FEW_MASKS = ("--propose.points-per-side", "2", "--propose.min-score", "0", "--propose.min-stability", "0")


@pytest.mark.parametrize("kind", SAMS)
def test_every_kind_of_segment_anything_works(kind: str, tmp_path: Path, tiny_of_the_authors: None) -> None:
    model, flags = tmp_path / "model", ()
    if write := SAMS[kind]:
        write(model)
    else:
        random_sam(tmp_path / "hub")
        model = tmp_path / "sam_vit_t.pth"
        sha256 = write_in_authors_layout(tmp_path / "hub", model)
        flags = ("--propose.engine", "segment-anything", "--propose.sha256", sha256)
    flags = ("--propose.model", model, *flags, *_FEW_MASKS, "--propose.max-proposals", "3")
    marker = _annotated(tmp_path / "out", "--proposer", "sam", *flags, "--captioner", "rule")
    assert marker.regions.inputs > 0
    assert marker.provenance["proposer"]["golden_answers"] is not None


def test_the_other_engine_of_yolov9_works(tmp_path: Path) -> None:
    sha256 = random_yolov9(tmp_path / "yolov9t.pt")
    flags = ("--propose.model", tmp_path / "yolov9t.pt", "--propose.sha256", sha256, "--propose.image-side", "128")
    few = ("--propose.min-score", "1e-6", "--propose.max-proposals", "3")
    marker = _annotated(tmp_path / "out", "--proposer", "yolov9", *flags, *few, "--captioner", "rule")
    assert marker.regions.inputs > 0


PROMPTS = {
    "llava": (random_llava, "Describe this image."),
    "blip": (random_blip, ""),
    "florence-2": (random_florence2, "<CAPTION>"),
    "paligemma": (random_paligemma, "caption en"),
}
"""How each kind of model of `vlm` is asked, by its own words where it has no chat template."""


@pytest.mark.parametrize("kind", PROMPTS)
def test_every_kind_of_vlm_works(kind: str, tmp_path: Path) -> None:
    write, prompt = PROMPTS[kind]
    write(tmp_path / "model")
    flags = ("--caption.model", tmp_path / "model", f"--caption.prompt={prompt}", "--caption.dtype", "float32")
    few = ("--caption.max-new-tokens", "4", "--caption.unfinished", "keep", "--caption.allow-constant", "true")
    marker = _annotated(tmp_path / "out", "--proposer", "manual", "--captioner", "vlm", *flags, *few)
    _check_captions(marker)


def test_a_blip2_with_a_t5_works(tmp_path: Path) -> None:
    random_blip2_t5(tmp_path / "model")
    flags = ("--caption.model", tmp_path / "model", "--caption.dtype", "float32", "--caption.max-new-tokens", "4")
    _check_captions(_annotated(tmp_path / "out", "--proposer", "manual", "--captioner", "blip2", *flags))


def _check_captions(marker: Any) -> None:
    regions = marker.regions
    assert regions.inputs > 0
    assert regions.ok + regions.num_dead + regions.num_filtered == regions.inputs
    assert not {*regions.dead} - {"repeated_caption", "empty_caption"}
    assert marker.provenance["captioner"]["golden_answers"] is not None
