"""The subcommand `train`: settings in, the exit code out.

What it does needs torch, which takes seconds to import and may not be installed: it is imported once the options are
known to be good and what they name is there, so that `--help`, wrong usage and wrong paths need neither.
"""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from schemas.dataset import Dataset
from trainer.cli.options import parse_train
from trainer.cli.outputs import check_folder, tell_end


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
        console = Console(emoji=False, markup=False, stderr=True, quiet=rank() != 0)
        result = train(
            dataset, Path(options.out), options.recipe, options.settings, device=device, console=console, stop=stop
        )
    return tell_end(console, result, f"The model is in {options.out}/model.", asked_to_stop=stop.requested)
