"""The card of a mini: what it is, how it was trained, what it reaches, and what it must not be used for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TARGETS: dict[str, dict[str, tuple[str, float]]] = {
    "detector": {"recall_at_iou_0.5": (">=", 0.95), "boxes_per_object": ("<=", 1.5)},
    "captioner": {"colour": (">=", 0.98), "shape_colour_size": (">=", 0.90)},
    "clip": {},
}
"""What each mini is meant to reach, by figure."""


INTERVAL, HELD_OUT_INTERVAL = 0.03, 0.10
"""How far from the stated figure one of a repeated training may lie: over all regions; over the held-out ones, of which
there are a tenth as many. Where the reached repeats lie is in the cards."""


def interval(figure: str) -> float:
    """Return how far a repeated training's `figure` may lie from the stated one."""
    return HELD_OUT_INTERVAL if figure.endswith("_held_out") else INTERVAL


def outside_interval(figures: Mapping[str, float], repeat: Mapping[str, float]) -> list[str]:
    """Return the figures of a repeated training that lie outside the stated interval; counts do not count."""
    return [
        figure
        for figure, value in figures.items()
        if not figure.startswith("num_") and abs(repeat[figure] - value) > interval(figure)
    ]


@dataclass(frozen=True, kw_only=True)
class _Text:
    title: str
    what: str
    use: str
    measured: str
    caveats: str = ""


_DETECTOR_CAVEATS = """
On photographs it marks boxes all the same, 11 to 34 a picture on the six that the project bundles: they mean nothing.

**Provenance caveat.** The model and loss code is libreyolo's, MIT by its own metadata. Some blocks of its
`yolo9/nn.py` are nearly token-identical to code of Ultralytics, which is AGPL-3.0. This project therefore copies none
of that code, uses libreyolo as a dependency only, and does not claim that it is free of AGPL code. The weights were
trained from random ones on pictures that this project draws.
"""

_TEXTS = {
    "detector": _Text(
        title="Mini detector: YOLOv9-t, one class",
        what="YOLOv9-t for one class, `object`, at 256 px. Weights in fp16 safetensors, loaded strictly.",
        use="`fineclip annotate scenes:200 OUTPUT --profile mini`, or `pipeline.propose.libreyolo.load(folder)`.",
        measured="confidence 0.25, non-maximum suppression at IoU 0.5, JPEG pictures as the source gives them",
        caveats=_DETECTOR_CAVEATS,
    ),
    "captioner": _Text(
        title="Mini captioner: BLIP-2 with an OPT head",
        what="`Blip2ForConditionalGeneration`, 1.7 M parameters, with a byte-level BPE of its own. Crops go onto a "
        "canvas of 80 px at their own scale and are never resized, so that the size of an object can be seen. fp16 "
        "safetensors in the hub's layout; pass `dtype=torch.float32` on a CPU. Heads that name the attributes and "
        "draw the mask taught the vision tower while it was trained; they are not in the checkpoint.",
        use="`fineclip annotate scenes:200 OUTPUT --profile mini`, or `Blip2ForConditionalGeneration.from_pretrained`.",
        measured="share of captions right in each aspect, on crops cut tight at the true boxes, greedy decoding",
    ),
    "clip": _Text(
        title="Mini CLIP: ViT and text tower of open_clip",
        what="A CLIP of 1.2 M parameters: 96 px, patches of 8 px, 128 wide; its text tower was trained too. fp16 "
        "safetensors. The start that the studies of this project share. Heads that name the attributes of crops and "
        "draw their masks taught the vision tower while it was trained; they are not in the checkpoint.",
        use='`open_clip.create_model_and_transforms("local-dir:FOLDER")`, or `pipeline.caption.clip.load(folder)`.',
        measured="the best of 1,320 captions, all of the grammar, for crops cut tight at the true boxes: share right "
        "in each aspect, `all` being region top-1; `image_to_text_recall@1` among the captions of all these scenes",
        caveats="\nRegion matching works on crops, which training showed it. Dense features of whole scenes were not "
        "trained to match regions.\n",
    ),
}


def card(
    name: str,
    *,
    recipe: Mapping[str, Any],
    figures: Mapping[str, float],
    versions: Mapping[str, str],
    repeats: Mapping[str, Mapping[str, float]],
) -> str:
    """Return the card of a mini as Markdown.

    `recipe` is that of `recipe.json`, with `training_seconds`; `repeats` has the figures of trainings with other seeds.
    """
    text = _TEXTS[name]
    libraries = ", ".join(f"{library} {version}" for library, version in versions.items())
    crops = "scenes" if name == "detector" else "crops"
    return f"""---
license: apache-2.0
---
# {text.title}

**Synthetic scenes only: finds nothing of use in photographs.** It exists so that the pipeline can run offline with
the real architectures and be scored against a known truth.

{text.what}

- Use: {text.use}
- Data: procedural scenes, generator version {recipe["scenes_version"]}, split `train`, drawn afresh for every step; no
  picture of anyone's. Ten shape and colour pairs appear in the `test` split only ("held out").
- Budget: {recipe["steps"]} steps of {recipe["batch_size"]} {crops}, {recipe["training_seconds"] / 60:.0f} minutes on
  {recipe["threads"]} CPU thread beside other work. Repeat it with `fineclip train-mini {name}`; `recipe.json` has every
  setting, `curve.jsonl` the learning curve.
- Libraries: {libraries}.
- Licence of the weights: Apache-2.0.
{text.caveats}
## Figures

Measured on {figures["num_scenes"]:.0f} scenes of the `test` split, seed {recipe["test_seed"]}, none seen in training:
{text.measured}.

{_table(name, figures, repeats)}
{_repeated(repeats)}"""


def _table(name: str, figures: Mapping[str, float], repeats: Mapping[str, Mapping[str, float]]) -> str:
    rows = ["| figure | reached | target |" + "".join(f" seed {seed} |" for seed in repeats)]
    rows += ["|---|---|---|" + "---|" * len(repeats)]
    for figure, value in figures.items():
        others = "".join(f" {repeat[figure]:g} |" for repeat in repeats.values())
        rows.append(f"| {figure} | {value:g} | {_target(name, figure, value)} |{others}")
    return "\n".join(rows)


def _repeated(repeats: Mapping[str, Mapping[str, float]]) -> str:
    if not repeats:
        return ""
    seeds = " and ".join(repeats)
    return (
        f"\nThe recipe was repeated with seed {seeds}: other weights at the start, other scenes to learn from, the\n"
        f"same test scenes. **A repeat lies within ±{INTERVAL:g} of the reached figures, and within\n"
        f"±{HELD_OUT_INTERVAL:g} of those over the held-out pairs**; `fineclip train-mini` compares at its end.\n"
    )


def _target(name: str, figure: str, value: float) -> str:
    if figure not in TARGETS[name]:
        return ""
    sense, bound = TARGETS[name][figure]
    reached = value >= bound if sense == ">=" else value <= bound
    return f"{sense} {bound:g}: {'reached' if reached else 'falls short'}"
