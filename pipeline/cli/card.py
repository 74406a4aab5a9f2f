"""The subcommand `card`: a data set's README.md from what is measured of it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from pipeline.audit.census import Census, Distribution, take_census
from pipeline.audit.example import Example, make_example
from pipeline.audit.layout import REPORT
from pipeline.run.card import card
from pipeline.store.storage import Storage, open_storage, storage_errors
from schemas.dataset import Dataset
from schemas.folder import DatasetError
from schemas.names import CARD, CARD_DIR, DATASET_JSON
from schemas.plain_flags import PlainParser
from schemas.records import decode_overlay_marker

EXAMPLE = f"{CARD_DIR}/example.jpg"
_MOST_LABELS = 15
_TERMS = ("kind", "what", "license", "note")
_DESCRIPTION = """\
Write the card of a data set, DATA/README.md, from what is measured of it: sources, models, licences, counts,
distributions, filters, known limits, and an example (DATA/_card/example.jpg). Overlays and filter lists are counted in.
`annotate` writes its own short card again whenever it runs: make this one last."""


def card_main(arguments: Sequence[str]) -> int:
    """Run `fineclip card` and return its exit code. Raises errors that carry theirs."""
    parser = PlainParser("fineclip card", _DESCRIPTION)
    parser.add_argument("data", metavar="DATA", help="a data set made by fineclip annotate: a folder, or a URL")
    parser.add_repeated("--overlay", "NAME", "overlay whose columns replace DATA's own")
    parser.add_repeated("--filter", "FILE", "filter list of what is left out")
    parser.add_argument("--audit", metavar="OUT", help="folder of an audit of DATA, whose filters the card tells of")
    options = parser.parse_args(arguments)
    storage = open_storage(options.data)
    with storage_errors(storage.url):
        dataset = Dataset.open(options.data, overlays=options.overlay, filters=options.filter)
        said = _dataset_json(storage)
        said["provenance"] += _provenance_of(storage, dataset, options.overlay)
        audited = None if options.audit is None else _audit(options.audit)
        census, example = take_census(dataset), make_example(dataset)
        names = [(name, "overlay") for name in options.overlay]
        names += [(Path(name).name, "filter list") for name in options.filter]
        sections = sections_of(said, census, example, audited, names)
        if example is not None:
            storage.replace(EXAMPLE, example.picture)
        splits = list(dict.fromkeys(shard.split for shard in dataset.shards))
        storage.replace(CARD, card(said, splits, sections).encode())
    console = Console(emoji=False, highlight=False, markup=False, soft_wrap=True)
    console.print(f"Card: {storage.url}/{CARD}")
    return 0


def _dataset_json(storage: Storage) -> dict[str, Any]:
    try:
        return msgspec.json.decode(storage.read(DATASET_JSON), type=dict[str, Any])
    except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError) as error:
        where = f"{storage.url}/{DATASET_JSON}"
        raise DatasetError(f"{where}: is not there, or damaged; the same annotate writes it") from error


def _provenance_of(storage: Storage, dataset: Dataset, overlays: Sequence[str]) -> list[dict[str, Any]]:
    """Return what made the overlays, by the marker of the first shard that has each."""
    found = []
    for overlay in overlays:
        names = (f"{shard}.{overlay}.json" for shard in dataset.shards)
        first = next(name for name in names if storage.size(name) is not None)
        found.append(decode_overlay_marker(storage.read(first), f"{storage.url}/{first}").provenance)
    return found


def _audit(out: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode((Path(out) / REPORT).read_bytes(), type=dict[str, Any])
    except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError) as error:
        raise DatasetError(f"{out}: holds no finished audit; run `fineclip audit DATA {out}`") from error


def sections_of(
    said: dict[str, Any],
    census: Census,
    example: Example | None,
    audited: dict[str, Any] | None,
    names: Sequence[tuple[str, str]],
) -> dict[str, str]:
    """Return what the card says beyond the short one, in Markdown by title.

    `said` is `dataset.json`, `audited` an `audit.json`, `names` are overlays and filter lists with their kind.
    """
    sections = {}
    if example is not None:
        sections["Example"] = _example(example)
    sections["Numbers"] = _numbers(census, names)
    sections["Models and licences"] = _licenses(said, census)
    if audited is not None:
        sections["Filters"] = _filters(audited)
    sections["Known limits"] = "\n".join(f"- {limit}" for limit in limits_of(said, census))
    return sections


def _example(example: Example) -> str:
    lines = [f"![Images with numbered boxes]({EXAMPLE})", ""]
    for number, (key, captions) in enumerate(example.captions, 1):
        told = "; ".join(f"({place}) {_plain(caption)}" for place, caption in enumerate(captions, 1))
        lines.append(f"{number}. `{key}`: {told}")
    return "\n".join(lines)


def _numbers(census: Census, names: Sequence[tuple[str, str]]) -> str:
    rows = [
        ("regions per image", census.regions_an_image),
        ("shorter side of a box, pixels", census.side),
        ("area of a box, % of the image", census.area),
        ("words of a caption", census.words),
    ]
    seen = "".join(f" As {kind} `{name}` shows it." for name, kind in names)
    table = "\n".join(f"| {title} | {_quantiles(found)} |" for title, found in rows)
    labels = ", ".join(f"{_plain(label)} {count:,}" for label, count in census.labels.most_common(_MOST_LABELS))
    text = (
        f"{census.images:,} images, {census.regions:,} regions, {census.different_captions:,} different captions "
        f"(case and punctuation aside).{seen}\n\n"
        f"| | 5 % | 25 % | median | 75 % | 95 % |\n|---|---|---|---|---|---|\n{table}\n"
    )
    return text + (f"\n{len(census.labels):,} labels; the most frequent: {labels}.\n" if labels else "\nNo labels.\n")


def _quantiles(found: Distribution) -> str:
    return " | ".join(f"{value:,}" for value in found.quantiles() or []) or "- | - | - | - | -"


def _licenses(said: dict[str, Any], census: Census) -> str:
    terms = dict.fromkeys((role, *(str(each[name]) for name in _TERMS)) for role, each in _terms(said))
    table = "\n".join("| " + " | ".join(map(_plain, row)) + " |" for row in terms)
    stated = ", ".join(f"{_plain(name)} {count}" for name, count in census.licenses.most_common())
    return (
        f"| | | | licence | |\n|---|---|---|---|---|\n{table}\n\n"
        f"Images: {stated or 'none looked at'}, of {census.licenses.total()} records looked at."
    )


def _terms(said: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the role and the terms of each piece of code and each model that made the data."""
    for made in said["provenance"]:
        for role, part in made.items():
            for terms in (part.get("licenses") or ()) if isinstance(part, dict) else ():
                yield role, {"note": "", **terms}


def _filters(audited: dict[str, Any]) -> str:
    rows = "\n".join(
        f"| {each['title']} | {each['column']} {each['keeps']} {each['threshold']:g} | {each['dropped']:,} |"
        for each in audited["filters"]
        if each["threshold"] is not None and each["measured"]
    )
    regions = audited["regions"]
    return (
        f"By `fineclip audit`: its filter list drops {regions['dropped']:,} of {regions['audited']:,} regions.\n\n"
        f"| filter | kept if | regions dropped |\n|---|---|---|\n{rows}"
    )


def limits_of(said: dict[str, Any], census: Census) -> list[str]:
    """Return what a user of the data should know, each a sentence of what was measured."""
    limits = ["No person has checked these boxes and captions, unless the sections above say so."]
    if census.regions and census.captioned < census.regions:
        limits.append(f"{census.regions - census.captioned:,} regions have no caption.")
    for count, what in (
        (census.repeated, "of the captions are those of other regions, too"),
        (census.boilerplate, 'of the captions begin by speaking of themselves ("a picture of")'),
        (census.stuck, "of the captions repeat themselves, as a model does that got stuck"),
    ):
        if count:
            limits.append(f"{count / max(1, census.captioned):.1%} {what}.")
    unstated = census.licenses["not stated"]
    if unstated:
        share = unstated / census.licenses.total()
        limits.append(f"{share:.0%} of the images whose records were looked at state no licence.")
    restricted = sorted({each["what"] for _, each in _terms(said) if not each.get("permissive", True)})
    if restricted:
        limits.append(f"Models or code whose licences restrict use took part: {', '.join(restricted)}.")
    lost = [f"{name} {count:,}" for name in ("images", "regions") if (count := sum(said[name]["dead"].values()))]
    if lost:
        limits.append(f"Some of the input could not be used: dead {', '.join(lost)}.")
    if not said["complete"]:
        limits.append("The data set is not finished: shards are missing.")
    return limits


def _plain(text: str) -> str:
    """Return text that Markdown takes for text, on one line."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>#|!" else c for c in " ".join(text.split()))
