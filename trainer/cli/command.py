"""The subcommands `train` and `evaluate`: settings in, the exit code out.

What they do needs torch, which takes seconds to import and may not be installed: it is imported once the options are
known to be good and what they name is there, so that `--help`, wrong usage and wrong paths need neither.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from schemas.dataset import Dataset
from trainer.cli.options import parse_evaluate, parse_train
from trainer.cli.outputs import check_file, check_folder
from trainer.errors import DONE, INTERRUPTED
from trainer.run.files import find_checkpoint


def train_main(arguments: Sequence[str]) -> int:
    """Run `fineclip train` and return its exit code; errors that a person can act on carry theirs."""
    options = parse_train(arguments)
    check_folder(options.out, "--out")
    dataset = Dataset.open(options.data, overlays=options.overlays, filters=options.filters)
    if options.settings.eval_data is not None:
        Dataset.open(options.settings.eval_data)
    from trainer.loss.gather import rank
    from trainer.run.loop import train
    from trainer.run.processes import joined_processes
    from trainer.run.stop import stopping_on_signals

    with joined_processes(options.settings.device) as device, stopping_on_signals() as stop:
        console = Console(emoji=False, stderr=True, quiet=rank() != 0)
        result = train(
            dataset, Path(options.out), options.recipe, options.settings, device=device, console=console, stop=stop
        )
    if result.finished:
        console.print(f"Done: {result.step} steps. The model is in {options.out}/model.", highlight=False)
        return DONE
    command = "the same command" if stop.requested else "the command without --stop-after"
    console.print(
        f"Stopped after step {result.step} of {result.num_steps}; {command} goes on from there.", highlight=False
    )
    return INTERRUPTED if stop.requested else DONE


def evaluate_main(arguments: Sequence[str]) -> int:
    """Run `fineclip evaluate` and return its exit code; errors that a person can act on carry theirs."""
    options = parse_evaluate(arguments)
    check_file(options.out, "--out")
    find_checkpoint(options.checkpoint)
    dataset = Dataset.open(options.data, overlays=options.overlays, filters=options.filters)
    from trainer.data.index import build_index
    from trainer.evaluate.embed import embed
    from trainer.evaluate.tasks import EVALUATORS
    from trainer.evaluate.texts import DEFAULT_TEMPLATES, TextEncoder, read_templates
    from trainer.loss.gather import rank
    from trainer.model.student import Student
    from trainer.run.load import load_any
    from trainer.run.processes import joined_processes

    with joined_processes(options.device) as device:
        loaded = load_any(options.checkpoint, image_size=options.image_size, alpha=options.alpha)
        templates = DEFAULT_TEMPLATES if options.templates is None else read_templates(options.templates)
        index = build_index(dataset, options.split)
        for task in options.tasks:
            EVALUATORS[task].check(index)
        loaded.model.clip.to(device)
        embedded = embed(
            Student(loaded.model.clip).backbone,
            loaded.model.preparation(loaded.settings),
            dataset,
            index,
            settings=options.settings,
            regions=any(EVALUATORS[task].USES_REGIONS for task in options.tasks),
            device=device,
        )
        encoder = TextEncoder(model=loaded.model, device=device, templates=templates)
        metrics: dict[str, Any] = {task: dict(EVALUATORS[task].run(embedded, encoder)) for task in options.tasks}
        if rank() == 0:
            written = {"checkpoint": options.checkpoint, "data": options.data, "split": options.split, **metrics}
            Path(options.out).parent.mkdir(parents=True, exist_ok=True)
            Path(options.out).write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
            Console(emoji=False).print_json(data=metrics)
    return DONE
