"""The licence ledger: under which terms each model and code path stands, and whether they restrict its users.

Every backend names its own entries; provenance and `--permissive-only` are made from them, and a test holds the
tables of README.md and docs/licences.md to them. They are what project pages and model cards say, to our knowledge, and
no legal advice; where a card and what is inside disagree, the stricter one counts.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.models.weights import name_of_path, origin_of


class LicenseError(ValueError):
    """A model or code path is not permissively licensed, and --permissive-only was given. Commands exit 2 on it."""

    exit_code = 2


@dataclass(frozen=True, kw_only=True)
class Licensed:
    """A piece of code, or weights, and its terms."""

    what: str
    """Name of the package, or of the model as it was asked for."""
    kind: Literal["code", "weights"]
    license: str
    """SPDX identifier where there is one; `unknown` where nobody has said."""
    permissive: bool
    """Whether any use is allowed that keeps the notices."""
    note: str = ""
    """What a user should know beyond the identifier."""


PERMISSIVE = frozenset({"Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "CC-BY-4.0"})
"""SPDX identifiers that allow any use with attribution."""
_UNKNOWN = "unknown"

TRANSFORMERS = Licensed(what="transformers", kind="code", license="Apache-2.0", permissive=True)
BITSANDBYTES = Licensed(what="bitsandbytes", kind="code", license="MIT", permissive=True)
TORCHVISION = Licensed(what="torchvision", kind="code", license="BSD-3-Clause", permissive=True)
OPEN_CLIP = Licensed(what="open_clip", kind="code", license="MIT", permissive=True)
OPENAI_CLIENT = Licensed(what="openai", kind="code", license="Apache-2.0", permissive=True)
OURS = Licensed(what="fineclip-regions", kind="code", license="Apache-2.0", permissive=True)
SEGMENT_ANYTHING = Licensed(what="segment-anything", kind="code", license="Apache-2.0", permissive=True)
OPENCV = Licensed(what="opencv-contrib", kind="code", license="Apache-2.0", permissive=True)
ULTRALYTICS = Licensed(
    what="ultralytics",
    kind="code",
    license="AGPL-3.0",
    permissive=False,
    note="an extra of its own; what is built on it, its network services too, falls under the AGPL or their licence",
)
LIBREYOLO = Licensed(
    what="libreyolo",
    kind="code",
    license="MIT",
    permissive=True,
    note="by its own metadata; parts of its `yolo9/nn.py` are nearly token-identical to AGPL-3.0 code of Ultralytics",
)

_OPT = (
    "MIT by its card, which does not mention that the language model inside is Meta's OPT, under a licence for "
    "non-commercial research"
)
_OPT_LICENSE = "OPT-175B licence"
_WEIGHTS: dict[str, tuple[str, str]] = {
    "mini": ("Apache-2.0", "trained here, on synthetic scenes"),
    "Salesforce/blip2-opt-2.7b": (_OPT_LICENSE, _OPT),
    "Salesforce/blip2-opt-2.7b-coco": (_OPT_LICENSE, _OPT),
    "Salesforce/blip2-opt-6.7b": (_OPT_LICENSE, _OPT),
    "Salesforce/blip2-opt-6.7b-coco": (_OPT_LICENSE, _OPT),
    "Salesforce/blip2-flan-t5-xl": ("MIT", "the Flan-T5 inside is Apache-2.0"),
    "Salesforce/blip2-flan-t5-xl-coco": ("MIT", "the Flan-T5 inside is Apache-2.0"),
    "Salesforce/blip2-flan-t5-xxl": ("MIT", "the Flan-T5 inside is Apache-2.0"),
    "facebook/sam-vit-base": ("Apache-2.0", ""),
    "facebook/sam-vit-large": ("Apache-2.0", ""),
    "facebook/sam-vit-huge": ("Apache-2.0", ""),
    **dict.fromkeys(
        (
            "ustc-community/dfine-small-coco",
            "ustc-community/dfine-large-coco",
            "ustc-community/dfine-xlarge-coco",
            "ustc-community/dfine-small-obj2coco",
            "ustc-community/dfine-medium-obj2coco",
            "ustc-community/dfine-xlarge-obj2coco",
            "PekingU/rtdetr_v2_r50vd",
            "PekingU/rtdetr_v2_r101vd",
            "SenseTime/deformable-detr",
            "hustvl/yolos-tiny",
            "hustvl/yolos-base",
            "facebook/detr-resnet-50",
            "IDEA-Research/grounding-dino-tiny",
            "IDEA-Research/grounding-dino-base",
            "openmmlab-community/mm_grounding_dino_tiny_o365v1_goldg_v3det",
            "iSEE-Laboratory/llmdet_tiny",
            "iSEE-Laboratory/llmdet_base",
            "iSEE-Laboratory/llmdet_large",
            "google/owlv2-base-patch16-ensemble",
            "google/owlv2-large-patch14-ensemble",
            "omlab/omdet-turbo-swin-tiny-hf",
            "facebook/sam2.1-hiera-tiny",
            "facebook/sam2.1-hiera-small",
            "facebook/sam2.1-hiera-base-plus",
            "facebook/sam2.1-hiera-large",
        ),
        ("Apache-2.0", ""),
    ),
    "Roboflow/rf-detr-medium": ("Apache-2.0", "by its authors' documentation, which says so of the sizes up to large"),
    "Roboflow/rf-detr-large": ("Apache-2.0", "by its authors' documentation, which says so of the sizes up to large"),
    "Roboflow/rf-detr-xlarge": ("PML-1.0", "Roboflow's Platform Model License: with an account of theirs"),
    "Roboflow/rf-detr-2xlarge": ("PML-1.0", "Roboflow's Platform Model License: with an account of theirs"),
    "facebook/sam3": ("SAM License", "Meta's own, with limits of use; gated: the hub asks for consent and may refuse"),
    "fasterrcnn_resnet50_fpn_v2": ("BSD-3-Clause", "torchvision's; trained on COCO"),
    "fasterrcnn_mobilenet_v3_large_320_fpn": ("BSD-3-Clause", "torchvision's; trained on COCO"),
    "fasterrcnn_mobilenet_v3_large_fpn": ("BSD-3-Clause", "torchvision's; trained on COCO"),
    "Salesforce/blip-image-captioning-base": ("BSD-3-Clause", ""),
    "Salesforce/blip-image-captioning-large": ("BSD-3-Clause", ""),
    **dict.fromkeys(
        (
            "florence-community/Florence-2-base",
            "florence-community/Florence-2-base-ft",
            "florence-community/Florence-2-large",
            "florence-community/Florence-2-large-ft",
        ),
        ("MIT", "Microsoft's weights, in transformers' own layout"),
    ),
    "google/paligemma2-3b-pt-224": ("Gemma Terms of Use", "Google's own, with limits of use; gated"),
    "HuggingFaceTB/SmolVLM-256M-Instruct": ("Apache-2.0", ""),
    "HuggingFaceTB/SmolVLM-500M-Instruct": ("Apache-2.0", ""),
    "Qwen/Qwen2-VL-2B-Instruct": ("Apache-2.0", ""),
    "Qwen/Qwen2-VL-7B-Instruct": ("Apache-2.0", ""),
    "Qwen/Qwen2.5-VL-7B-Instruct": ("Apache-2.0", ""),
    "Qwen/Qwen2.5-VL-3B-Instruct": ("Qwen Research License", "non-commercial"),
    "laion/CLIP-ViT-B-32-laion2B-s34B-b79K": ("MIT", ""),
    "laion/CLIP-ViT-B-16-laion2B-s34B-b88K": ("MIT", ""),
    "laion/CLIP-ViT-L-14-laion2B-s32B-b82K": ("MIT", ""),
    "llava-hf/llava-1.5-7b-hf": ("Llama 2 Community License", "its language model is Vicuna, made from Llama 2"),
    "internlm/internlm-xcomposer2-vl-7b": (
        "InternLM weights licence",
        "code Apache-2.0; weights free for research, commercial use on application",
    ),
}
"""Models by name (a hub id, a torchvision builder, `mini`): licence and note."""


Origin = Literal["mini", "path", "hub", "published", "server"]


def model_license(
    name: str,
    *,
    mini: str | None = None,
    origin: Origin | None = None,
    stated: str | None = None,
) -> Licensed:
    """Return the terms of the weights called `name`, which depend on where they come from.

    mini, hub, published   the ledger vouches for what ships, and for what the hub and torchvision have under that name
    path                   anything may lie there: it vouches for nothing
    server                 a server can call any weights so: restricted ones are taken at its word, others not

    `origin` is by default where `find_model` looks for `name`, `mini` being the one that ships for this use. Where the
    ledger is silent, the terms are `stated`, what the user vouches for, or `unknown`, hence not permissive. A path is
    called by its last component: the provenance must not depend on where the weights lie.
    """
    origin = origin or origin_of(name, mini=mini)
    entry = _WEIGHTS.get(name)
    no_hub_id = origin == "hub" and "/" not in name
    if origin == "path" or no_hub_id or (origin == "server" and entry and entry[0] in PERMISSIVE):
        entry = None
    terms, note = entry or (stated or _UNKNOWN, "as stated by the user" if stated else "")
    what = name_of_path(Path(name)) if origin == "path" else name
    return Licensed(what=what, kind="weights", license=terms, permissive=terms in PERMISSIVE, note=note)


def remote_code(model: str) -> Licensed:
    """Return the terms of the Python code that comes with a model: nobody has looked at them."""
    return Licensed(what=f"the code of {model}", kind="code", license=_UNKNOWN, permissive=False)


def known_weights() -> list[Licensed]:
    """Return the entry of every model that the ledger knows, by name."""
    return [model_license(model, origin="published") for model in sorted(_WEIGHTS)]


def check_permissive(entries: Iterable[Licensed]) -> None:
    """Raise LicenseError, naming each, where not all of `entries` are permissive."""
    refused = [entry for entry in entries if not entry.permissive]
    if refused:
        named = "; ".join(f"{entry.what} ({entry.kind}): {entry.license}" for entry in refused)
        raise LicenseError(
            f"--permissive-only refuses {named}. Choose other models (docs/models.md lists them), or, for weights "
            "whose licence the ledger does not know, state it with --propose.license or --caption.license"
        )
