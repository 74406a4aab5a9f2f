"""`fineclip segment train|evaluate|predict`: settings in, the exit code out.

Torch is imported once the options are known to be good, as in `command`.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from trainer.cli.heads import run_command, tell_data, tell_predicted, tell_unmeasured, write_metrics
from trainer.cli.outputs import check_file, check_folder, tell_end, tell_skipped
from trainer.cli.segment_options import parse_segment_evaluate, parse_segment_predict, parse_segment_train
from trainer.errors import DONE
from trainer.evaluate.class_split import read_class_split
from trainer.run.files import CLIP, find_checkpoint
from trainer.segmentation.files import checked_segmenter, find_segmenter


def segment_main(arguments: Sequence[str]) -> int:
    """Run `fineclip segment` and return its exit code; errors that a person can act on carry theirs."""
    return run_command("segment", {"train": _train, "evaluate": _evaluate, "predict": _predict}, arguments)


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
        console = Console(emoji=False, markup=False, stderr=True)
        data = open_data(options.data, split, to_train=True, background=inputs.background)
        tell_data(console, f"{len(data)} images, {len(data.classes)} classes", data.left_out)
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
        console = Console(emoji=False, markup=False, stderr=True)
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
        tell_data(console, f"{len(data)} images, {len(data.classes)} classes", data.left_out)
        progress = Progress(console, "measured {} of {} images")
        if options.head == "none" or trained is None:
            clip = load_any(options.model if path is None else str(path.parent / CLIP)).model
            found = probe(
                clip, data, inputs, residual=options.residual, device=device, workers=options.workers, watch=progress
            )
        else:
            segmenter = trained.segmenter(device=device)
            found = evaluate_segmenter(segmenter, data, options.views, workers=options.workers, watch=progress)
    tell_unmeasured(console, found.skipped, len(data))
    of_head = {"residual": options.residual} if options.head == "none" else asdict(options.views)
    write_metrics(
        options,
        "segment",
        arguments,
        found,
        split_classes=named,
        settings=asdict(inputs) | of_head,
        left_out=dict(data.left_out),
    )
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

    files = image_files(options.images, options.out)
    with joined_processes(options.device) as device:
        console = Console(emoji=False, markup=False, stderr=True)
        found = predict(
            open_segmenter(path).segmenter(device=device),
            files,
            options.names,
            options.masks,
            options.views,
            Path(options.out),
            watch=Progress(console, "looked at {} of {} images"),
        )
    tell_skipped(console, found.skipped)
    threshold = f"--threshold {options.masks.threshold} in {options.masks.min_area_px} pixels of a part"
    tell_predicted(console, options, "regions", found.num_found, found.num_images, MASKS, threshold)
    return DONE
