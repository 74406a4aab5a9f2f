"""The subcommand `doctor`."""

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from pipeline.doctor import report
from pipeline.doctor.absent import examine_absence
from pipeline.doctor.examine import Checks, examine
from pipeline.doctor.findings import Findings, Level
from pipeline.doctor.loading import LoaderShape
from pipeline.overlay.drop_list import load_drop_list
from schemas.folder import Folder
from schemas.plain_flags import PlainParser
from schemas.store_errors import StorageError, check_here, storage_errors
from schemas.text import counted

HEALTHY, ILL = 0, 1
_DESCRIPTION = """\
Check that a data set is whole and will train; say what is wrong, where, and what to do. Nothing is changed."""
_EPILOG = """\
exit codes:
  0  no error (warnings may be)
  1  errors; with --absent, an image is still there, or a file cannot be searched
  2  usage or no data set at DATA
  5  the store cannot be read"""


def doctor_main(arguments: Sequence[str]) -> int:
    """Run `fineclip doctor` and return its exit code. Raises errors that carry theirs."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.json is not None:
        check_here(options.json, "--json")
        if not Path(options.json).parent.is_dir():
            parser.error(f"--json {options.json}: there is no folder {Path(options.json).parent}; make it first")
    if options.absent is not None:
        return _examine_absence(options)
    given = {name: getattr(options, name) for name in ("world_size", "workers", "batch_size")}
    given = {name: value for name, value in given.items() if value is not None}
    checks = Checks(
        sample=options.sample,
        decode_images=not options.no_decode,
        overlays=tuple(options.overlay),
        filters=tuple(options.filter),
        max_repeated=options.max_repeated,
        loader=LoaderShape(**given) if given else None,
        threads=options.threads,
    )
    try:
        with report.reading(Console(emoji=False, stderr=True)) as watcher:
            diagnosis = examine(options.data, checks, watcher)
        report.show(Console(emoji=False, highlight=False), diagnosis)
        if options.json is not None:
            report.write_json(Path(options.json), diagnosis)
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(
            f"{error}; check the address, the network and your permissions, then run this again"
        ) from error
    return ILL if diagnosis.findings.num(Level.ERROR) else HEALTHY


def _examine_absence(options: argparse.Namespace) -> int:
    drop, findings = load_drop_list(options.absent), Findings()
    with storage_errors(options.data):
        num_files = examine_absence(Folder(options.data), drop, findings, options.threads)
    looked_for, errors = counted(len(drop.lines), "line"), findings.num(Level.ERROR)
    told = f"{looked_for} of {options.absent} looked for in {counted(num_files, 'file')}: "
    told += f"found {errors:,} times, or not to be told" if errors else "none is there"
    report.show_findings(Console(emoji=False, highlight=False), findings, told)
    if options.json is not None:
        content = {"summary": told, "num_files": num_files, "num_lines": len(drop.lines)}
        report.write_findings(Path(options.json), findings, content)
    return ILL if errors else HEALTHY


def _parser() -> PlainParser:
    parser = PlainParser("fineclip doctor", _DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("data", metavar="DATA", help="a data set made by `fineclip annotate`: a folder, or a URL")
    count = _between(int, 1)
    parser.add_argument("--sample", type=count, metavar="N", help="read N shards only (default: all)")
    parser.add_argument("--no-decode", action="store_true", help="do not decode the images: several times faster")
    parser.add_repeated("--overlay", "NAME", "overlay to check too")
    parser.add_repeated("--filter", "FILE", "filter list of what is left out")
    defaults = Checks()
    repeated = "share of captions that may repeat an earlier one, 0 to 1 (default: %(default)s)"
    parser.add_argument(
        "--max-repeated", type=_between(float, 0, 1), default=defaults.max_repeated, metavar="SHARE", help=repeated
    )
    threads = "shards read at a time (default: %(default)s)"
    parser.add_argument("--threads", type=count, default=defaults.threads, metavar="N", help=threads)
    absent = "look for the images of this list (as of `materialize --drop`) in every file, instead of all else"
    parser.add_argument("--absent", metavar="FILE", help=absent)
    parser.add_argument("--json", metavar="FILE", help="write the findings there too")
    training = parser.add_argument_group(
        "training", "With any of these, the shards are checked against loaders that give whole shards to workers."
    )
    training.add_argument("--world-size", type=count, metavar="N", help="ranks, one per GPU (default: 1)")
    training.add_argument("--workers", type=count, metavar="N", help="reading processes per rank (default: 1)")
    training.add_argument("--batch-size", type=count, metavar="N", help="images in a rank's batch (default: 1)")
    return parser


def _between(kind: type[int] | type[float], least: float, most: float = math.inf) -> Callable[[str], float]:
    def parse(text: str) -> float:
        number = kind(text)
        if not least <= number <= most:
            limits = f"at least {least}" if most == math.inf else f"from {least} to {most}"
            raise argparse.ArgumentTypeError(f"{text} is not {limits}")
        return number

    parse.__name__ = "whole number" if kind is int else "number"  # what argparse calls it in messages
    return parse
