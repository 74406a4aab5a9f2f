"""The studies: functions from a ground to cells. The paper's tables, and some of ours.

Write your own in a file, and run it by `fineclip study FILE.py:FUNCTION`.
"""

from collections.abc import Callable, Sequence

from trainer.errors import TrainingError
from trainer.study.cell import OUT, Cell, Contrast, Metric, Step, Study
from trainer.study.grounds import Ground

_CLIP = ("--region-weight", "0", "--distill-weight", "0")
_CLIPSELF = ("--global-weight", "0", "--region-weight", "0", "--teacher", "frozen")
_REGIONCLIP = ("--global-weight", "0", "--distill-weight", "0", "--region-objective", "concepts")
_HARD = "FineCLIP, hard negatives"
_TRUE, _SWAPPED = "true captions", "20 % swapped"
_BY_START, _BY_SHIPPED = "swapped, less by the start's margin", "swapped, less by the shipped CLIP's margin"
_CAPTIONS = "region to text R@10"
"""The metric that wrong captions should tell on most."""
_MARGINS = {"start": "-0.54", "shipped": "-0.08"}
"""Margins in the sample below which a caption goes, chosen on other scenes (docs/results/margin.json)."""
_TRAINING = (
    Metric(name="cost.train.cpu_s", title="CPU seconds a training", unit="s", decimals=0),
    Metric(name="cost.train.peak_memory_mb", title="peak memory, MB", unit="MB", decimals=0),
)


def methods(ground: Ground) -> Study:
    """Table 4: FineCLIP against CLIP, CLIPSelf, RegionCLIP and hard negatives from one start, with what each costs."""
    cells = [
        *ground.evaluated("the start", ground.start),
        *ground.trained("CLIP", *_CLIP),
        *ground.trained("CLIPSelf", *_CLIPSELF),
        *ground.trained("RegionCLIP", *_REGIONCLIP),
        *ground.trained("FineCLIP"),
        *_with_hard_negatives(ground),
        *ground.evaluated("the shipped mini CLIP", ground.shipped),
    ]
    contrasts = [
        Contrast(row="FineCLIP", against=against, metric=ground.primary)
        for against in ("CLIPSelf", "CLIP", "RegionCLIP", _HARD)
    ]
    return Study(title="Methods", cells=_by_seed(cells), metrics=(*ground.metrics, *_TRAINING), contrasts=contrasts)


def losses(ground: Ground) -> Study:
    """Table 1: which of the three losses does what."""
    names = ("global", "region", "distill")
    cells = []
    for kept in (("distill",), ("global",), ("global", "distill"), ("region",), ("global", "region"), names):
        left_out = [name for name in names if name not in kept]
        flags = [flag for name in left_out for flag in (f"--{name}-weight", "0")]
        cells += ground.trained("FineCLIP" if kept == names else " + ".join(kept), *flags)
    contrasts = [
        Contrast(row="FineCLIP", against="global + region", metric=ground.primary),
        Contrast(row="FineCLIP", against="global + distill", metric=ground.primary),
    ]
    return Study(title="Losses", cells=_by_seed(cells), metrics=ground.metrics, contrasts=contrasts)


def proposers(ground: Ground) -> Study:
    """Table 2: where regions come from, with what each finds and takes; one captioner for all."""
    if not ground.inputs:
        raise TrainingError("proposers: the study annotates pictures anew: name them by --input INPUT")
    metrics = [Metric(name="cost.data.cpu_s", title="CPU seconds for the data", unit="s", decimals=0)]
    if ground.has_truth:
        metrics += [
            Metric(name="boxes.boxes_per_image", title="regions per image", unit="regions"),
            Metric(name="boxes.recall@4", title="recall at 4 boxes"),
            Metric(name="boxes.recall@10", title="recall at 10 boxes"),
        ]
    cells = []
    for row, given in ground.proposers.items():
        data = Step(kind="data", arguments=("annotate", *ground.inputs, OUT, *given))
        score = Step(kind="score", arguments=("score", data.out, "--out", OUT), suffix=".json")
        steps = (data, score) if ground.has_truth else (data,)
        cells += [ground.cell(row, seed, steps, (data.out,)) for seed in ground.seeds]
    return Study(title="Proposers", cells=_by_seed(cells), metrics=(*ground.metrics, *metrics))


def annotators(ground: Ground) -> Study:
    """Table 3: who captions the same boxes, by `recaption`; and the data's own captions."""
    data = ground.train_data[0]
    cells = ground.trained("the truth" if ground.has_truth else "as they are")
    for row, given in ground.annotators.items():
        name = given[1].replace("_", "-")
        overlay = Step(
            kind="recaption",
            arguments=("recaption", data, *given, "--as", name),
            beside=f"{data}/_overlays/{name}/plan.json",
        )
        steps = (*ground.data, overlay)
        cells += [ground.cell(row, seed, steps, (data, "--overlay", name)) for seed in ground.seeds]
    return Study(title="Annotators", cells=_by_seed(cells), metrics=ground.metrics)


def scale(ground: Ground) -> Study:
    """Figure 2: a quarter of the images, half, all; each a part of the next, by hash of key."""
    data = ground.train_data[0]
    cells = []
    for share in ("0.25", "0.5"):
        arguments = ("study", "subset", data, "--share", share, "--out", OUT)
        subset = Step(kind="subset", arguments=arguments, suffix=".jsonl")
        for seed in ground.seeds:
            train_data = (*ground.train_data, "--filter", subset.out)
            cells.append(ground.cell(f"{float(share):.0%} of the images", seed, (*ground.data, subset), train_data))
    return Study(title="Scale", cells=_by_seed([*cells, *ground.trained("all images")]), metrics=ground.metrics)


def image_size(ground: Ground) -> Study:
    """Table 8: pixels of the input."""
    return _varied("Image size", ground, "--image-size", ("48", "64", "96") if ground.name == "scenes" else _SIZES)


def backbone(ground: Ground) -> Study:
    """Table 9: the paper's two towers. For scenes there is one start alone, and so one row."""
    if ground.name == "scenes":
        return Study(title="Backbone", cells=ground.trained("mini"), metrics=ground.metrics)
    return _varied("Backbone", ground, "--recipe", ("vitb16", "vitl14"))


def distillation(ground: Ground) -> Study:
    """The weight of the self-distillation, lambda: the paper's 1, and 8, which its code comes to on 8 GPUs."""
    return _varied("Lambda", ground, "--distill-weight", ("1", "8"), default="1")


def teacher(ground: Ground) -> Study:
    """Who embeds the crops."""
    return _varied("Teacher", ground, "--teacher", ("live", "detached", "ema", "frozen"), default="live")


def duplicate_text(ground: Ground) -> Study:
    """What another pair with the same caption is."""
    return _varied("Duplicate text", ground, "--duplicate-text", ("positive", "mask", "negative"), default="positive")


def filtered(ground: Ground) -> Study:
    """Training on true captions, on 20 % swapped ones, and on these less what the margin of two CLIPs drops."""
    if not ground.has_truth or ground.start is None or ground.shipped is None:
        raise TrainingError("filtered: the study swaps captions of scenes on purpose: give it --data scenes")
    data = ground.train_data[0]
    swap = Step(
        kind="swap",
        arguments=("truth", data, "--swap", "0.2", "--as", "swapped"),
        beside=f"{data}/_overlays/swapped/words.json",
    )
    wrong, steps = (data, "--overlay", "swapped"), (*ground.data, swap)
    cells = [
        *ground.trained(_TRUE),
        *(ground.cell(_SWAPPED, seed, steps, wrong) for seed in ground.seeds),
    ]
    scorers = {
        _BY_START: (f"local-dir:{ground.start}/model", "start", _MARGINS["start"]),
        _BY_SHIPPED: (ground.shipped, "shipped", _MARGINS["shipped"]),
    }
    for row, (model, name, margin) in scorers.items():
        made = (*steps, *_filter_list(data, model, name, margin))
        cells += [
            ground.cell(row, seed, made, (*wrong, "--filter", f"{made[-1].out}/filter.parquet"))
            for seed in ground.seeds
        ]
    pairs = ((_BY_SHIPPED, _SWAPPED), (_BY_START, _SWAPPED), (_TRUE, _SWAPPED), (_TRUE, _BY_SHIPPED))
    contrasts = [Contrast(row=row, against=against, metric=_CAPTIONS) for row, against in pairs]
    return Study(title="Filtered", cells=_by_seed(cells), metrics=ground.metrics, contrasts=contrasts)


_SIZES = ("224", "320", "448", "640")

STUDIES: dict[str, Callable[[Ground], Study]] = {
    "methods": methods,
    "losses": losses,
    "proposers": proposers,
    "annotators": annotators,
    "scale": scale,
    "image-size": image_size,
    "backbone": backbone,
    "lambda": distillation,
    "teacher": teacher,
    "duplicate-text": duplicate_text,
    "filtered": filtered,
}


def _filter_list(data: str, model: str, name: str, margin: str) -> tuple[Step, Step]:
    """Return the steps that score swapped captions by a model, and list those whose margin in the sample is smaller."""
    seen = ("--overlay", "swapped")
    score = Step(
        kind="scores",
        arguments=("score-regions", data, "--model", model, "--as", name, *seen, "--device", "cpu"),
        beside=f"{data}/_overlays/{name}/plan.json",
    )
    given = ("--only", "--no-images", "--threshold", f"margin_in_sample={margin}")
    audit = Step(kind="audit", arguments=("audit", data, OUT, *seen, "--overlay", name, *given))
    return score, audit


def _with_hard_negatives(ground: Ground) -> list[Cell]:
    """Return cells of FineCLIP whose regions are told from captions with one word changed, too."""
    data, captions = ground.train_data[0], ground.train_data[1:]
    overlay = Step(
        kind="hard-negatives",
        arguments=("hard-negatives", data, "--as", "changed", *captions),
        beside=f"{data}/_overlays/changed/plan.json",
    )
    given = (*ground.train_data, "--overlay", "changed")
    steps = (*ground.data, overlay)
    return [ground.cell(_HARD, seed, steps, given, "--hard-negative-weight", "1") for seed in ground.seeds]


def _varied(title: str, ground: Ground, flag: str, values: Sequence[str], default: str | None = None) -> Study:
    """Return a study of one flag of `train`; it is not given for the recipes' `default`, whose cells others share."""
    given = {value: () if value == default else (flag, value) for value in values}
    cells = [cell for value in values for cell in ground.trained(value, *given[value])]
    return Study(title=title, cells=_by_seed(cells), metrics=ground.metrics)


def _by_seed(cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells seed by seed, so that a study that is stopped has whole rounds."""
    return sorted(cells, key=lambda cell: -1 if cell.seed is None else cell.seed)
