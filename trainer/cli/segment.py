"""`fineclip segment train|evaluate|predict`: settings in, the exit code out.

Torch is imported once the options are known to be good, as in `command`.
"""

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from trainer.cli.outputs import check_file, check_folder, tell_end
from trainer.cli.segment_options import parse_segment_evaluate, parse_segment_predict, parse_segment_train
from trainer.errors import DONE, USAGE
from trainer.evaluate.class_split import read_class_split
from trainer.run.files import find_checkpoint
from trainer.segmentation.files import checked_segmenter, find_segmenter

_USAGE = """\
usage: fineclip segment train --model MODEL --data DATA --out RUN [options]
       fineclip segment evaluate --model RUN|MODEL --data DATA --out FILE.json [options]
       fineclip segment predict --model RUN --images DIR --names NAME... --out DIR [options]

`fineclip segment train --help` shows the options of train, and so on.
"""


def segment_main(arguments: Sequence[str]) -> int:
    """Run `fineclip segment` and return its exit code; errors that a person can act on carry theirs."""
    mains = {"train": _train, "evaluate": _evaluate, "predict": _predict}
    name = arguments[0] if arguments else "--help"
    if name in mains:
        return mains[name](arguments[1:])
    if name in ("-h", "--help"):
        sys.stdout.write(_USAGE)
        return DONE
    sys.stderr.write(f"{_USAGE}fineclip segment: error: {name!r} is none of {', '.join(mains)}\n")
    return USAGE


def _train(arguments: Sequence[str]) -> int:
    options = parse_segment_train(arguments)
    check_folder(options.out, "--out")
    find_checkpoint(options.model)
    inputs = options.recipe.inputs
    split = None if inputs.split_classes is None else read_class_split(inputs.split_classes)
    from trainer.run.load import load_any
    from trainer.run.processes import joined_processes
    from trainer.run.stop import stopping_on_signals
    from trainer.segmentation.data import open_data
    from trainer.segmentation.train import train_segmenter

    with joined_processes(options.settings.device) as device, stopping_on_signals() as stop:
        console = Console(emoji=False, stderr=True)
        data = open_data(options.data, split, to_train=True, background=inputs.background)
        _tell_data(console, len(data), len(data.classes), data.left_out)
        result = train_segmenter(
            load_any(options.model).model,
            data,
            Path(options.out),
            options.recipe,
            options.settings,
            device=device,
            console=console,
            stop=stop,
        )
    return tell_end(console, result, f"The segmenter is in {options.out}.", asked_to_stop=stop.requested)


def _evaluate(arguments: Sequence[str]) -> int:
    options = parse_segment_evaluate(arguments)
    check_file(options.out, "--out")
    path = checked_segmenter(options.model) if options.head == "trained" else find_segmenter(options.model)
    if path is None:
        find_checkpoint(options.model)
    if options.split_classes is not None:
        read_class_split(options.split_classes)
    from trainer.cli.measure import Progress
    from trainer.run.load import load_any
    from trainer.run.processes import joined_processes
    from trainer.segmentation.data import open_data
    from trainer.segmentation.evaluate import evaluate_segmenter
    from trainer.segmentation.probe import probe
    from trainer.segmentation.run import open_segmenter

    with joined_processes(options.device) as device:
        console = Console(emoji=False, stderr=True)
        trained = None if path is None else open_segmenter(path)
        inputs = options.inputs if options.head == "none" or trained is None else trained.recipe.inputs
        named = options.split_classes or inputs.split_classes
        data = open_data(
            options.data,
            None if named is None else read_class_split(named),
            to_train=False,
            background=(inputs.background if options.background is None else options.background) or None,
            shards=options.split,
        )
        _tell_data(console, len(data), len(data.classes), data.left_out)
        progress = Progress(console, "measured {} of {} images")
        if options.head == "none" or trained is None:
            clip = load_any(options.model).model
            found = probe(
                clip, data, inputs, residual=options.residual, device=device, workers=options.workers, watch=progress
            )
        else:
            segmenter = trained.segmenter(device=device)
            found = evaluate_segmenter(segmenter, data, options.views, workers=options.workers, watch=progress)
    for key, why in found.skipped[:3]:
        console.print(f"skipped {key}: {why}", highlight=False, markup=False)
    about = {
        "model": options.model,
        "data": options.data,
        "head": options.head,
        "command": shlex.join(["fineclip", "segment", "evaluate", *arguments]),
        "split_classes": named,
        "settings": asdict(inputs)
        | ({"residual": options.residual} if options.head == "none" else asdict(options.views)),
        "left_out": dict(data.left_out),
    }
    Path(options.out).parent.mkdir(parents=True, exist_ok=True)
    written = about | found.as_json()
    Path(options.out).write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    Console(emoji=False).print_json(data=written["metrics"])
    return DONE


def _predict(arguments: Sequence[str]) -> int:
    options = parse_segment_predict(arguments)
    check_folder(options.out, "--out")
    path = checked_segmenter(options.model)
    from trainer.cli.measure import Progress
    from trainer.evaluate.pixels import image_files
    from trainer.run.processes import joined_processes
    from trainer.segmentation.predict import MASKS, predict
    from trainer.segmentation.run import open_segmenter

    files = image_files(options.images)
    with joined_processes(options.device) as device:
        console = Console(emoji=False, stderr=True)
        found = predict(
            open_segmenter(path).segmenter(device=device),
            files,
            options.names,
            options.masks,
            options.views,
            Path(options.out),
            watch=Progress(console, "looked at {} of {} images"),
        )
    for key, why in found.skipped:
        console.print(f"skipped {key}: {why}", highlight=False, markup=False)
    console.print(
        f"{found.num_regions} regions in {found.num_images} images: pictures and {MASKS} are in {options.out}. Make a "
        f"data set of them by: fineclip annotate 'coco:{options.out}/{MASKS}?images={options.images}' DATA "
        "--proposer manual",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    return DONE


def _tell_data(console: Console, num_images: int, num_classes: int, left_out: Mapping[str, int]) -> None:
    console.print(f"{num_images} images, {num_classes} classes", highlight=False)
    for why, count in left_out.items():
        console.print(f"left out: {count}, {why}", highlight=False)
