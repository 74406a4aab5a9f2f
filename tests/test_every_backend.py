"""Each proposer with each captioner by command, on the CPU: minis where there are, else small random weights.

What random weights say means nothing; that it comes out whole, balanced and strictly decodable proves the plumbing.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.caption import CAPTIONERS, captioner_class
from pipeline.propose import PROPOSERS, proposer_class
from schemas.dataset import Dataset
from tests.builders import check_balance, run
from tests.caption_server import FakeCaptionServer
from tests.random_captioners import random_qwen2_vl
from tests.random_detectors import DETECTORS, random_detector
from tests.random_grounders import GROUNDERS, random_grounder, random_sam3
from tests.random_models import random_fastsam, random_libreyolo, random_rpn, random_sam

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
    outcome = run(
        *("annotate", "scenes:2?split=test", tmp_path / "out", "--profile", "weightless", "--device", "cpu"),
        *("--proposer", proposer, *proposers[proposer], "--captioner", captioner, *captioners[captioner]),
        *("--select.min-side", "1", "--max-dead", "1"),
    )
    assert outcome.code == 0, outcome
    check_balance(tmp_path / "out")
    marker = next(iter(Dataset.open(tmp_path / "out").markers.values()))
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
    outcome = run(
        *("annotate", "scenes:2?split=test", tmp_path / "out", "--device", "cpu", "--proposer", proposer),
        *("--propose.model", tmp_path / "model", "--propose.min-score", "0", "--propose.max-proposals", "3"),
        *("--captioner", "rule", "--select.min-side", "1", "--max-dead", "1"),
    )
    assert outcome.code == 0, outcome
    check_balance(tmp_path / "out")
    marker = next(iter(Dataset.open(tmp_path / "out").markers.values()))
    assert marker.regions.inputs > 0
    assert marker.provenance["proposer"]["golden_answers"] is not None
