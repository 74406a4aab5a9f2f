"""The subcommands `train` and `evaluate`: settings in, the exit code out.

What they do needs torch, which takes seconds to import and may not be installed: it is imported once the options are
known to be good, so that `--help` and wrong usage need neither.
"""

import sys
from collections.abc import Callable, Sequence

from rich.console import Console

from schemas.folder import DatasetError
from trainer.cli.options import parse_evaluate, parse_train
from trainer.errors import REFUSED, STOPPED, USAGE, RefusedError, StoppedError, TrainingError

_CODE_OF: dict[type[Exception], int] = {
    StoppedError: STOPPED,
    TrainingError: USAGE,
    DatasetError: USAGE,
    RefusedError: REFUSED,
}


def train_main(arguments: Sequence[str]) -> int:
    """Run `fineclip train` and return its exit code."""
    options = parse_train(arguments)
    from trainer.cli.execute import train_run

    return report_errors(lambda: train_run(options))


def evaluate_main(arguments: Sequence[str]) -> int:
    """Run `fineclip evaluate` and return its exit code."""
    options = parse_evaluate(arguments)
    from trainer.cli.execute import evaluate_model

    return report_errors(lambda: evaluate_model(options))


def report_errors(run: Callable[[], int]) -> int:
    """Print an error that a person can act on without a traceback, and return its exit code."""
    try:
        return run()
    except tuple(_CODE_OF) as error:
        sys.stdout.flush()
        Console(emoji=False, stderr=True).print(
            f"fineclip: {error}", style="bold red", markup=False, highlight=False, soft_wrap=True
        )
        return next(code for kind, code in _CODE_OF.items() if isinstance(error, kind))
