"""From the command line of `fineclip segment train|evaluate|predict` to settings; nothing here imports torch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from schemas.flags import flag_of
from trainer.cli.head_options import HeadTrainOptions, checked_names, evaluate_parser, parse_head_train, predict_parser
from trainer.cli.options import add_device, add_flat, settings_of, usage_errors
from trainer.cores import default_workers
from trainer.segmentation.settings import (
    SEGMENT_RECIPES,
    MaskSettings,
    SegmentInputs,
    SegmentRecipe,
    SegmentRunSettings,
    ViewSettings,
)

_DATA_HELP = (
    "coco-stuff:, ade150:, ade847: or maps:FOLDER?images=FOLDER&classes=FILE.json, pc59:trainval_merged.json?..., "
    "coco:FILE.json?images=FOLDER with masks, or a data set of `fineclip annotate` with labels and masks"
)
_OF_PROBE = ("image_size", "template", "residual")


@dataclass(frozen=True, kw_only=True)
class SegmentEvaluateOptions:
    """What `fineclip segment evaluate` was asked."""

    model: str
    data: str
    out: str
    head: Literal["trained", "none"]
    split: str
    split_classes: str | None
    background: str | None
    inputs: SegmentInputs
    """With --head none."""
    residual: Literal["own", "cls"]
    """With --head none."""
    views: ViewSettings
    workers: int
    device: str


@dataclass(frozen=True, kw_only=True)
class SegmentPredictOptions:
    """What `fineclip segment predict` was asked."""

    model: str
    images: str
    names: tuple[str, ...]
    out: str
    masks: MaskSettings
    views: ViewSettings
    device: str


def parse_segment_train(arguments: Sequence[str]) -> HeadTrainOptions[SegmentRecipe, SegmentRunSettings]:
    """Parse `fineclip segment train ...`. Prints help or an error and raises SystemExit."""
    text = "Train CAT-Seg on a CLIP: its cost volume, aggregated to a mask a name."
    return parse_head_train("segment", text, _DATA_HELP, SEGMENT_RECIPES, SegmentRunSettings, arguments)


def parse_segment_evaluate(arguments: Sequence[str]) -> SegmentEvaluateOptions:
    """Parse `fineclip segment evaluate ...`. Prints help or an error and raises SystemExit."""
    text = "Measure a segmenter by the mean IoU of classes, or a CLIP alone by its raw cost volume."
    head_help = "none: no segmenter at all: which name is the most similar to a pixel's patch"
    parser = evaluate_parser("segment", text, _DATA_HELP, head_help)
    parser.add_argument(
        "--split-classes",
        metavar="NAME|FILE",
        default=None,
        help="groups of classes to measure apart: scenes, scenes-held-out, ov-coco, or a JSON file; default: those of "
        "the run, where its data had some",
    )
    parser.add_argument(
        "--background",
        metavar="NAME",
        default=None,
        help="name of what no region covers, for data of regions; default: the run's; '' leaves such pixels out, as no "
        "name at all does",
    )
    inputs = SegmentInputs()
    parser.add_argument(
        "--image-size",
        type=int | None,
        default=None,
        help=f"with --head none: side that images are squashed to, in pixels; default: {inputs.image_size}",
    )
    parser.add_argument(
        "--template",
        metavar="TEXT",
        default=None,
        help=f"with --head none: sentence for a class name; default: {inputs.template}",
    )
    parser.add_argument(
        "--residual",
        choices=["own", "cls"],
        default=None,
        help="with --head none: what the last block's values are added to; default: own, as FineCLIP's dense map",
    )
    add_flat(parser, ViewSettings())
    add_device(parser)
    parser.add_argument("--workers", type=int, default=default_workers(2), help="processes that decode images")
    parsed = parser.parse_args(list(arguments))
    given = {name: parsed[name] for name in _OF_PROBE if parsed[name] is not None}
    if given and parsed.head == "trained":
        parser.error(f"{flag_of(next(iter(given)))}: for --head none alone; a segmenter sees what it was trained with")
    residual = given.pop("residual", "own")
    if parsed.workers < 0:
        parser.error(f"--workers {parsed.workers}: give 0 or more")
    names = ("model", "data", "out", "head", "split", "split_classes", "background", "workers", "device")
    with usage_errors(parser):
        views = settings_of(ViewSettings, parsed)
        return SegmentEvaluateOptions(
            **{name: parsed[name] for name in names}, inputs=replace(inputs, **given), residual=residual, views=views
        )


def parse_segment_predict(arguments: Sequence[str]) -> SegmentPredictOptions:
    """Parse `fineclip segment predict ...`. Prints help or an error and raises SystemExit."""
    text = "Find things by name in a folder of images: pictures with masks, and COCO's JSON for `annotate`."
    parser = predict_parser("segment", text, "masks.json", [MaskSettings(), ViewSettings()])
    parsed = parser.parse_args(list(arguments))
    names = checked_names(parser, parsed)
    with usage_errors(parser):
        return SegmentPredictOptions(
            model=parsed.model,
            images=parsed.images,
            names=names,
            out=parsed.out,
            masks=settings_of(MaskSettings, parsed),
            views=settings_of(ViewSettings, parsed),
            device=parsed.device,
        )
