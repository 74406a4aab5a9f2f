"""`fineclip detect train|evaluate|predict`: settings in, the exit code out.

Torch is imported once the options are known to be good, as in `command`.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from trainer.cli.detect_options import parse_detect_evaluate, parse_detect_predict, parse_detect_train
from trainer.cli.heads import run_command, tell_data, tell_predicted, tell_unmeasured, write_metrics
from trainer.cli.outputs import check_file, check_folder, tell_end, tell_skipped
from trainer.detection.files import checked_detector, find_detector
from trainer.errors import DONE
from trainer.evaluate.class_split import read_class_split
from trainer.run.files import find_checkpoint


def detect_main(arguments: Sequence[str]) -> int:
    """Run `fineclip detect` and return its exit code; errors that a person can act on carry theirs."""
    return run_command("detect", {"train": _train, "evaluate": _evaluate, "predict": _predict}, arguments)


def _train(arguments: Sequence[str]) -> int:
    options = parse_detect_train(arguments)
    check_folder(options.out, "--out")
    find_checkpoint(options.model)
    split = read_class_split(options.recipe.inputs.split_classes)
    from trainer.detection.annotations import open_data
    from trainer.detection.train import train_detector
    from trainer.run.load import load_any
    from trainer.run.processes import joined_processes
    from trainer.run.stop import stopping_on_signals

    with joined_processes(options.settings.device) as device, stopping_on_signals() as stop:
        console = Console(emoji=False, markup=False, stderr=True)
        data = open_data(options.data, split, to_train=True)
        tell_data(console, f"{len(data.boxes)} boxes in {len(data)} images", data.left_out)
        result = train_detector(
            load_any(options.model).model,
            data,
            Path(options.out),
            options.recipe,
            options.settings,
            device=device,
            console=console,
            stop=stop,
        )
    return tell_end(console, result, f"The detector is in {options.out}.", asked_to_stop=stop.requested)


def _evaluate(arguments: Sequence[str]) -> int:
    options = parse_detect_evaluate(arguments)
    check_file(options.out, "--out")
    path = checked_detector(options.model) if options.head == "trained" else find_detector(options.model)
    if path is None:
        find_checkpoint(options.model)
    if options.split_classes is not None:
        read_class_split(options.split_classes)
    from trainer.cli.measure import Progress
    from trainer.detection.annotations import open_data
    from trainer.detection.evaluate import evaluate_detector
    from trainer.detection.probe import probe
    from trainer.detection.run import open_detector
    from trainer.run.load import load_any
    from trainer.run.processes import joined_processes

    with joined_processes(options.device) as device:
        console = Console(emoji=False, markup=False, stderr=True)
        trained = None if path is None else open_detector(path)
        inputs = options.inputs if options.head == "none" or trained is None else trained.recipe.inputs
        split = read_class_split(options.split_classes or inputs.split_classes)
        data = open_data(options.data, split, to_train=False, shards=options.split)
        tell_data(console, f"{len(data.boxes)} boxes in {len(data)} images", data.left_out)
        progress = Progress(console, "measured {} of {} images")
        if options.head == "none" or trained is None:
            clip = load_any(options.model).model if trained is None else trained.clip
            found = probe(clip, data, split, inputs, device=device, workers=options.workers, watch=progress)
        else:
            found = evaluate_detector(
                trained.detector(data.classes, data.is_base.tolist(), device=device),
                data,
                split,
                options.scores,
                device=device,
                batch_size=options.batch_size,
                workers=options.workers,
                watch=progress,
            )
    tell_unmeasured(console, found.skipped, len(data))
    write_metrics(
        options,
        "detect",
        arguments,
        found,
        split_classes=split.where,
        settings=asdict(inputs) | asdict(options.scores),
        left_out=dict(data.left_out),
    )
    return DONE


def _predict(arguments: Sequence[str]) -> int:
    options = parse_detect_predict(arguments)
    check_folder(options.out, "--out")
    path = checked_detector(options.model)
    from trainer.cli.measure import Progress
    from trainer.detection.predict import DETECTIONS, predict
    from trainer.detection.run import open_detector
    from trainer.evaluate.pixels import image_files
    from trainer.run.processes import joined_processes

    files = image_files(options.images, options.out)
    with joined_processes(options.device) as device:
        console = Console(emoji=False, markup=False, stderr=True)
        trained = open_detector(path)
        split = read_class_split(trained.recipe.inputs.split_classes)
        is_base = [split.is_base(name) for name in options.names]
        found = predict(
            trained.detector(options.names, is_base, device=device),
            files,
            options.names,
            options.scores,
            Path(options.out),
            device=device,
            watch=Progress(console, "looked at {} of {} images"),
        )
    tell_skipped(console, found.skipped)
    threshold = f"--score-threshold {options.scores.score_threshold}"
    tell_predicted(console, options, "boxes", found.num_found, found.num_images, DETECTIONS, threshold)
    return DONE
