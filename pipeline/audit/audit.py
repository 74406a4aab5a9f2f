"""The flow of an audit: look at all, measure each shard, sweep, recommend, list, report."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.audit.filters import BY_NAME, FILTERS
from pipeline.audit.layout import LIST, PAGE, PLAN, REPORT, measures_file, read_measures
from pipeline.audit.listing import write_filter_list
from pipeline.audit.measures import Watch, measure_shard, survey, write_table
from pipeline.audit.pictures import Sheets, crop_uri, draws_of
from pipeline.audit.recommend import recommend
from pipeline.audit.report import Audited, as_html, as_json
from pipeline.audit.sweep import Sweep, Thresholds, Totals, add_totals, values_of
from pipeline.errors import PlanError
from pipeline.export.part import write_whole
from schemas.dataset import Dataset

_LAYOUT = 1
"""Of the measures: raised when the same data would give others."""
_NAMES = {
    "layout": "the layout of its measures",
    "data": "what DATA and its --filter show (a fingerprint)",
    "overlays": "--overlay",
    "against": "--against",
    "images": "whether images are compared",
}
"""What OUT is an audit of, as a person gives it."""
_SHOWN_SHARE = 0.05
"""Of the regions that the threshold of a filter that is off drops in its sheets."""


@dataclass(frozen=True, kw_only=True)
class AuditSettings:
    """What an audit looks at."""

    overlays: Sequence[str] = ()
    filters: Sequence[str] = ()
    against: str | None = None
    """Another set of pictures, any INPUT of `annotate`."""
    images: bool = True
    """Whether images are compared with each other."""
    thresholds: Mapping[str, float | None]
    """By name of the filter, instead of those that are recommended; None switches it off."""
    recommended: bool = True
    """Whether the filter list has what is recommended too."""
    seed: int = 0
    """Of what the sheets show."""


def audit(
    data: str, out: Path, settings: AuditSettings, *, watch: Watch = lambda what, done, all_: None
) -> dict[str, Any]:
    """Audit the data set at `data` into the folder `out`, or go on; return what `audit.json` says.

    Raises DatasetError where the data cannot be read, SourceError for an `against` that is no INPUT, PlanError where
    OUT holds something else, and OSError on storage trouble.
    """
    dataset = Dataset.open(data, overlays=settings.overlays, filters=settings.filters)
    _claim(out, dataset, settings)
    _measure(dataset, out, settings, watch)
    sweeps = _sweep(dataset, out)
    num_regions = sum(int(pc.is_valid(table["region_id"]).to_numpy().sum()) for table in _tables(dataset, out))
    looked_at = {"duplicate": settings.images, "against": settings.images and settings.against is not None}
    looked = [name for name, was in looked_at.items() if was]
    advice = {each.filter.name: recommend(each, num_regions, looked) for each in sweeps}
    chosen = {name: one.threshold for name, one in advice.items()} if settings.recommended else {}
    merged = {**chosen, **settings.thresholds}
    thresholds = {name: limit for name, limit in merged.items() if limit is not None}
    totals = Totals()
    for table in _tables(dataset, out):
        add_totals(totals, table, thresholds)
    num_rows = write_filter_list(out / LIST, _tables(dataset, out), thresholds)
    sheets = _draw_sheets(dataset, out, sweeps, thresholds, settings.seed)
    audited = [
        Audited(
            sweep=sweep,
            advice=advice[sweep.filter.name],
            threshold=thresholds.get(sweep.filter.name),
            sheets=sheets.get(sweep.filter.name),
        )
        for sweep in sweeps
    ]
    about = {
        "title": data.rstrip("/").rsplit("/", 1)[-1],
        "overlays": list(settings.overlays),
        "against": settings.against,
        "num_rows_of_list": num_rows,
    }
    said = as_json(audited, totals, about)
    page = as_html(audited, totals, about, crop=lambda row: crop_uri(dataset, row))
    write_whole(out / PAGE, [page])
    write_whole(out / REPORT, [(json.dumps(said, indent=1, ensure_ascii=False) + "\n").encode()])
    return said


def _claim(out: Path, dataset: Dataset, settings: AuditSettings) -> None:
    """Write down what OUT is an audit of. Raises PlanError where it is of something else."""
    plan = {
        "layout": _LAYOUT,
        "data": dataset.data_fingerprint(),
        "overlays": list(settings.overlays),
        "against": settings.against,
        "images": settings.images,
    }
    path = out / PLAN
    if not path.exists():
        if out.exists() and any(out.iterdir()):
            raise PlanError(f"{out}: is not empty, and holds no audit; name a new folder, or empty this one")
        write_whole(path, [msgspec.json.encode(plan)])
        return
    try:
        before = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise PlanError(f"{path}: is damaged ({error}); name a new folder") from error
    differing = [name for name, value in plan.items() if before.get(name) != value]
    if differing:
        told = [name for name in differing if name != "data" or "overlays" not in differing]
        said = "; ".join(f"{_NAMES[name]} was {_told(before.get(name))}, and is {_told(plan[name])}" for name in told)
        raise PlanError(f"{out}: is an audit of something else: {said}; name a new folder")


def _told(value: Any) -> str:
    """Return a setting as a person reads it: the data's fingerprint by its beginning."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str) and len(value) == 64:
        return f"{value[:12]}..."
    return "none" if value in (None, []) else ", ".join(value) if isinstance(value, list) else str(value)


def _measure(dataset: Dataset, out: Path, settings: AuditSettings, watch: Watch) -> None:
    paths = {shard: measures_file(out, shard) for shard in dataset.shards}
    if all(path.exists() for path in paths.values()):
        return
    whole = survey(dataset, out, against=settings.against, images=settings.images, watch=watch)
    for number, (shard, path) in enumerate(paths.items()):
        watch("measuring", number, len(paths))
        if not path.exists():
            write_table(path, measure_shard(dataset, shard, whole))


def _tables(dataset: Dataset, out: Path) -> Iterator[pa.Table]:
    """Yield the measures, a shard at a time."""
    return (read_measures(out, shard) for shard in dataset.shards)


def _sweep(dataset: Dataset, out: Path) -> list[Sweep]:
    sweeps = [Sweep(filter=each) for each in FILTERS]
    for table in _tables(dataset, out):
        is_region = pc.is_valid(table["region_id"]).to_numpy()
        for sweep in sweeps:
            sweep.add(values_of(table, sweep.filter), is_region)
    return sweeps


def _draw_sheets(
    dataset: Dataset, out: Path, sweeps: Sequence[Sweep], thresholds: Thresholds, seed: int
) -> dict[str, Sheets]:
    shown = {}
    for sweep in sweeps:
        if sweep.num_measured:
            name = sweep.filter.name
            limit = thresholds.get(name, _telling_threshold(sweep))
            shown[name] = Sheets(filter=BY_NAME[name], threshold=limit)
    for shard in dataset.shards:
        table = read_measures(out, shard)
        draws = draws_of(shard, len(table), seed)
        for sheets in shown.values():
            sheets.add(table, draws)
    return {name: sheets for name, sheets in shown.items() if sheets.dropped}


def _telling_threshold(sweep: Sweep) -> float:
    """Return the threshold that drops about `_SHOWN_SHARE`: one to look at where none is recommended."""
    return float(sweep.filter.thresholds[abs(sweep.drops - _SHOWN_SHARE * sweep.num_measured).argmin()])
