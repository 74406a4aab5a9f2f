"""`fineclip evaluate CHECKPOINT --task TASK... --data DATA --out FILE.json`: settings in, the exit code out.

Torch is imported once the options are known to be good, as in `command`.
"""

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from schemas.dataset import Dataset
from trainer.cli.options import EvaluateOptions, parse_evaluate
from trainer.cli.outputs import check_file
from trainer.errors import DONE
from trainer.run.files import find_checkpoint


def evaluate_main(arguments: Sequence[str]) -> int:
    """Run `fineclip evaluate` and return its exit code; errors that a person can act on carry theirs."""
    options = parse_evaluate(arguments)
    given = [(options.out, "--out"), *([] if options.scores is None else [(options.scores, "--scores")])]
    for name, flag in given:  # as it was given: a URL is none any more once it is a path
        check_file(name, flag)
    outputs = [Path(options.out), Path(options.out).with_suffix(".md"), *(Path(name) for name, _ in given[1:])]
    check_file(str(outputs[1]), "--out")
    find_checkpoint(options.checkpoint)
    if ":" not in options.data or "://" in options.data:
        Dataset.open(options.data, overlays=options.overlays, filters=options.filters)  # a wrong path is told at once
    from trainer.cli.measure import measure
    from trainer.evaluate.report import report, write_scores
    from trainer.loss.gather import rank
    from trainer.run.processes import joined_processes

    with joined_processes(options.device) as device:
        console = Console(emoji=False, markup=False, stderr=True, quiet=rank() != 0)
        measured = measure(options, device, console)
        if rank() == 0:
            about = _about(options, arguments, measured)
            found = report(measured.found, about=about, intervals=options.intervals, skipped=measured.embedded.skipped)
            for path in outputs:
                path.parent.mkdir(parents=True, exist_ok=True)
            outputs[0].write_text(found.as_json(), encoding="utf-8")
            outputs[1].write_text(found.as_markdown(), encoding="utf-8")
            if options.scores is not None:
                write_scores(outputs[2], measured.found, measured.embedded.truth)
            Console(emoji=False, markup=False).print_json(data=found.metrics)
            told = f"Wrote {', '.join(map(str, outputs))}."  # intervals stand in the tables
            console.print(told, highlight=False, soft_wrap=True)
    return DONE


def _about(options: EvaluateOptions, arguments: Sequence[str], measured: Any) -> dict[str, Any]:
    """Return what the figures are of."""
    height, width = measured.image_size
    settings = {
        "image_size": f"{height} x {width}",
        "templates": measured.templates,
        "region_features": " ".join(options.region_features),
        **{name: value for name, value in asdict(options.settings).items() if name not in ("workers", "batch_size")},
        **asdict(options.truth),
        **asdict(options.intervals),
    }
    return {
        "checkpoint": options.checkpoint,
        "data": options.data,
        "split": options.split,
        "command": shlex.join(["fineclip", "evaluate", *arguments]),
        "settings": settings,
        "left_out": measured.embedded.truth.left_out,
        "num_captions": measured.cut.num_texts,
        "num_cut_captions": measured.cut.num_cut,
    }
