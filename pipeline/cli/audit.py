"""The subcommand `audit`: what filters would drop of a data set, as a report and a filter list."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from pipeline.audit.audit import AuditSettings, audit
from pipeline.audit.filters import BY_NAME, parse_threshold
from pipeline.audit.layout import LIST, PAGE
from pipeline.errors import OUT_EXIT_CODES
from schemas.plain_flags import PlainParser
from schemas.store_errors import check_here, storage_errors

_DESCRIPTION = """\
Measure each region and image of a data set by every filter, and write to the folder OUT how much each threshold would
drop, with what is kept and dropped side by side, what is recommended and why (audit.html, audit.json), and a filter
list (filter.parquet) for --filter of train, export, view and others. The data set itself is not touched. The same
command goes on where it was stopped; `fineclip view DATA --audit OUT` has the filters as sliders.

filters: {names}"""


def audit_main(arguments: Sequence[str]) -> int:
    """Run `fineclip audit` and return its exit code. Raises errors that carry theirs."""
    parser = PlainParser("fineclip audit", _DESCRIPTION.format(names=", ".join(BY_NAME)), epilog=OUT_EXIT_CODES)
    parser.add_argument("data", metavar="DATA", help="a data set made by fineclip annotate: a folder, or a URL")
    parser.add_argument("out", metavar="OUT", help="the folder to write")
    parser.add_repeated("--overlay", "NAME", "overlay whose columns replace DATA's own")
    parser.add_repeated("--filter", "FILE", "filter list of what to leave out beforehand")
    parser.add_argument(
        "--against",
        metavar="INPUT",
        help="pictures that must not be in DATA, such as a test set: any INPUT of `fineclip annotate`",
    )
    parser.add_argument("--no-images", action="store_true", help="do not look for near-duplicate images: much faster")
    threshold = "threshold of a filter, in place of the recommended one; NAME=off switches it off"
    parser.add_repeated("--threshold", "NAME=VALUE", threshold)
    parser.add_argument(
        "--only", action="store_true", help="apply the filters of --threshold alone, none of the recommended ones"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the choice of regions that the report shows (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    if options.against is not None and options.no_images:
        parser.error("--against compares images; leave --no-images out")
    check_here(options.out, "OUT")
    settings = AuditSettings(
        overlays=options.overlay,
        filters=options.filter,
        against=options.against,
        images=not options.no_images,
        thresholds=dict(map(parse_threshold, options.threshold)),
        recommended=not options.only,
        seed=options.seed,
    )
    console = Console(stderr=True, emoji=False)
    with (
        storage_errors(options.out),
        Progress(console=console, transient=True, disable=not console.is_terminal) as bar,
    ):
        task = bar.add_task("audit", total=None)
        said = audit(
            options.data,
            Path(options.out),
            settings,
            watch=lambda what, done, shards: bar.update(task, description=what, completed=done, total=shards),
        )
    _show(said, Path(options.out))
    return 0


def _show(said: dict[str, object], out: Path) -> None:
    console = Console(emoji=False, highlight=False, markup=False, soft_wrap=True)
    filters, regions, images = said["filters"], said["regions"], said["images"]
    assert isinstance(filters, list) and isinstance(regions, dict) and isinstance(images, dict)
    for each in filters:
        if not each["was_measured"]:
            console.print(f"{each['name']:<17}not measured: {each['reason']}")
        else:
            limit = "off" if each["threshold"] is None else f"{each['column']} {each['keeps']} {each['threshold']:g}"
            console.print(f"{each['name']:<17}{limit:<32}{each['dropped']:>9,} dropped   {each['reason']}")
    console.print(
        f"{regions['dropped']:,} of {regions['audited']:,} regions and {images['dropped']:,} of {images['audited']:,} "
        "images are dropped"
    )
    console.print(f"Filter list: {out / LIST} (--filter takes it)\nReport: {out / PAGE}")
