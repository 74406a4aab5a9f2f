"""The subcommand `doctor`."""

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from pipeline.doctor import report
from pipeline.doctor.examine import Checks, examine
from pipeline.doctor.findings import Level
from pipeline.doctor.loading import LoaderShape
from schemas.plain_flags import PlainParser
from schemas.store_errors import StorageError, check_here

HEALTHY, ILL = 0, 1
_DESCRIPTION = """\
Check that a data set is whole and will train; says what is wrong, where, and what to do. Changes nothing."""
_EPILOG = """\
exit codes:
  0  no error (warnings may be)
  1  errors
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


def _parser() -> PlainParser:
    parser = PlainParser("fineclip doctor", _DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("data", metavar="DATA", help="a data set made by `fineclip annotate`: a folder, or a URL")
    count = _between(int, 1)
    parser.add_argument("--sample", type=count, metavar="N", help="read N shards only (default: all)")
    parser.add_argument("--no-decode", action="store_true", help="do not decode the images: several times faster")
    parser.add_argument("--overlay", action="append", default=[], metavar="NAME", help="may be given several times")
    parser.add_argument("--filter", action="append", default=[], metavar="FILE", help="a filter list; several may be")
    defaults = Checks()
    repeated = "share of captions that may repeat an earlier one, 0 to 1 (default: %(default)s)"
    parser.add_argument(
        "--max-repeated", type=_between(float, 0, 1), default=defaults.max_repeated, metavar="SHARE", help=repeated
    )
    threads = "shards read at a time (default: %(default)s)"
    parser.add_argument("--threads", type=count, default=defaults.threads, metavar="N", help=threads)
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
