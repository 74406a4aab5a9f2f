"""`fineclip study NAME --data DATA --out DIR`: settings in, the exit code out."""

import argparse
import importlib.util
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown

from schemas.dataset import Dataset
from schemas.plain_flags import PlainParser
from trainer.cli.outputs import check_folder
from trainer.errors import DONE, STOPPED, InterruptedRunError, TrainingError
from trainer.recipes import RECIPES
from trainer.study import subset
from trainer.study.cell import Study
from trainer.study.grounds import SCENES, Ground, data_set, scenes
from trainer.study.report import write_report
from trainer.study.run import StudyRun
from trainer.study.studies import STUDIES

_DESCRIPTION = """\
Run a study: train and measure each of its cells, and write a table. The same command runs what is missing."""
_EXIT_CODES = """\
exit codes:
  0  done: all cells are there
  1  cells failed; the same command tries them again
  2  wrong usage or unusable input
  3  refused: another study is at work in DIR
  4  interrupted; the same command goes on
  5  DIR cannot be written"""


def main(arguments: Sequence[str]) -> int:
    """Run `fineclip study` and return its exit code; errors that a person can act on carry theirs."""
    if arguments[:1] == ["subset"]:
        return subset.main(arguments[1:])
    options, flags = _parse(arguments)
    check_folder(options.out, "--out")
    out = Path(options.out)
    study = _made(options.name, _ground(options, flags))
    console = Console(emoji=False, markup=False, stderr=True)
    run = StudyRun(out, console)
    try:
        failures = [] if options.report else run.run(study)
        code = STOPPED if failures else DONE
    except InterruptedRunError as error:
        console.print(str(error))
        code = error.exit_code
    found = {cell.name: there for cell in study.cells if (there := run.read(cell)) is not None}
    if found:
        name = options.name.rsplit(":", 1)[-1]
        command = ["fineclip", "study", *(argument for argument in arguments if argument != "--report")]
        Console(emoji=False, markup=False).print(Markdown(write_report(study, found, out, name, command)))
        console.print(f"{len(found)} of {len(study.cells)} cells; the table is {out / name}.md", highlight=False)
    return code


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the options, and the flags after `--`, which every training is given."""
    at = list(arguments).index("--") if "--" in arguments else len(arguments)
    width = max(map(len, STUDIES)) + 2
    studies = "\n".join(f"  {name:<{width}}{(make.__doc__ or '').splitlines()[0]}" for name, make in STUDIES.items())
    parser = PlainParser("fineclip study", f"{_DESCRIPTION}\n\nstudies:\n{studies}", epilog=_EXIT_CODES)
    parser.usage = "fineclip study NAME --data DATA --out DIR [options] [-- FLAGS OF EVERY TRAINING]"
    parser.add_argument("name", metavar="NAME", help="one of the studies above, or FILE.py:FUNCTION, one of your own")
    parser.add_argument(
        "--data", required=True, metavar="DATA", help="`scenes`, which is made here, or a data set with val shards"
    )
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="folder of cells and tables; several studies share it"
    )
    parser.add_argument("--recipe", default="vitb16", help="recipe of all trainings on a data set (default: vitb16)")
    parser.add_repeated("--input", "INPUT", "for the study `proposers`: INPUT of `fineclip annotate`")
    parser.add_argument(
        "--seeds", type=int, metavar="N", help="number of seeds (default: 3 for methods, losses and filtered, else 1)"
    )
    parser.add_argument(
        "--report", action="store_true", help="write the table of the cells that are there; run nothing"
    )
    options = parser.parse_args(arguments[:at])
    if options.seeds is None:
        options.seeds = 3 if options.name in ("methods", "losses", "filtered") else 1
    if options.recipe not in RECIPES:
        parser.error(f"--recipe {options.recipe}: there is no such recipe; there are {', '.join(RECIPES)}")
    if options.seeds < 1:
        parser.error(f"--seeds {options.seeds}: give 1 or more")
    return options, list(arguments[at + 1 :])


def _ground(options: argparse.Namespace, flags: list[str]) -> Ground:
    if options.data == SCENES:
        return scenes(flags, seeds=options.seeds)
    Dataset.open(options.data)  # a wrong path is told at once
    return data_set(
        options.data, Path(options.out), recipe=options.recipe, inputs=options.input, flags=flags, seeds=options.seeds
    )


def _made(name: str, ground: Ground) -> Study:
    """Return a study by its name or place. Raises TrainingError where there is none, or it has an error."""
    if name in STUDIES:
        return STUDIES[name](ground)
    file = name.rpartition(":")[0]
    try:
        study = _study_of(name)(ground)
    except TrainingError:
        raise
    except Exception as error:  # whatever a user's code may raise
        frames = traceback.extract_tb(error.__traceback__)
        line = next((frame.lineno for frame in reversed(frames) if frame.filename == file), None)
        line = error.lineno if isinstance(error, SyntaxError) and error.filename == file else line
        place = file if line is None else f"{file}, line {line}"
        raise TrainingError(f"{place}: {type(error).__name__}: {error}") from error
    if not isinstance(study, Study):
        raise TrainingError(f"{name}: it returns {type(study).__name__}, not a trainer.study.cell.Study")
    problem = study.problem()
    if problem is not None:
        raise TrainingError(f"{name}: {problem}")
    return study


def _study_of(name: str) -> Callable[[Ground], Study]:
    """Return a user's study by its place. Raises TrainingError where there is none."""
    file, _, function = name.rpartition(":")
    spec = importlib.util.spec_from_file_location("study_of_a_user", file) if file.endswith(".py") else None
    if spec is None or spec.loader is None or not Path(file).is_file():
        raise TrainingError(f"there is no study {name!r}; there are {', '.join(STUDIES)}, or FILE.py:FUNCTION")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    made = getattr(module, function, None)
    if not callable(made):
        raise TrainingError(f"{file} has no function {function!r}")
    study: Callable[[Ground], Study] = made
    return study
