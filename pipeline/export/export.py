"""The flow of an export: the plan of OUT, the parts that are missing, the join."""

import dataclasses
import fcntl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from pipeline.errors import PlanError
from pipeline.export.formats import Format
from pipeline.export.join import Join
from pipeline.export.part import FOLDER, PARTS, Counts, Part, are_whole, finished, write_whole
from pipeline.export.survey import Survey, survey
from schemas.dataset import Dataset
from schemas.loose_json import shown
from schemas.names import ShardName

_PLAN, _DONE, _LOCK = f"{FOLDER}/plan.json", f"{FOLDER}/done.json", f"{FOLDER}/lock"
_LAYOUT = 1
"""Raised when the same data would give other bytes: an export that a release began, another must not end."""


def export(
    data: str,
    out: Path,
    to: Format,
    *,
    overlays: Sequence[str] = (),
    filters: Sequence[str] = (),
    watch: Callable[[int, int], None] = lambda done, shards: None,
) -> tuple[Counts, int]:
    """Write `data` with its overlays, less what filter lists drop, to the folder `out`.

    `watch` is told after each shard how many of how many are done. Returns what OUT holds, and how many shards were
    written now. Raises DatasetError where the data are damaged, PlanError where OUT is of another configuration or
    another process writes to it, OSError on storage trouble.
    """
    dataset = Dataset.open(data, overlays=overlays, filters=filters)
    configuration = {
        "format": type(to).__name__.lower(),
        "options": dataclasses.asdict(to),  # type: ignore[call-overload]  # a Format is a dataclass
        "data": dataset.data_fingerprint(),
        "overlays": list(overlays),
        "filters": len(filters),
        "layout": _LAYOUT,
    }
    _check_plan(out, configuration)
    surveyed = survey(dataset)
    with _locked(out):
        write_whole(out / _PLAN, [msgspec.json.encode(configuration)])
        done = _done(out, dataset)
        if done is not None:
            return done, 0
        return _export(dataset, surveyed, out, to, watch)


class _Done(msgspec.Struct):
    counts: Counts
    files: dict[str, int]
    """Those that were joined: size in bytes by name."""


def _done(out: Path, dataset: Dataset) -> Counts | None:
    """Return what OUT holds where all of it is there; None where something is to be written."""
    try:
        done = msgspec.json.decode((out / _DONE).read_bytes(), type=_Done)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
    parts = (finished(out, shard, with_lines=False) is not None for shard in dataset.shards)
    return done.counts if are_whole(out, done.files) and all(parts) else None


def _export(
    dataset: Dataset, surveyed: Survey, out: Path, to: Format, watch: Callable[[int, int], None]
) -> tuple[Counts, int]:
    totals, num_written = Counts(), 0
    for position, shard in enumerate(dataset.shards, 1):
        counts = finished(out, shard)
        if counts is None:
            counts = _write_part(dataset, surveyed, shard, out, to)
            num_written += 1
        totals.add(counts)
        watch(position, len(dataset.shards))
    join = Join(out=out, shards=dataset.shards, survey=surveyed)
    to.join(join)
    write_whole(out / _DONE, [msgspec.json.encode(_Done(totals, join.written))])
    for path in (out / PARTS).iterdir():
        if path.suffix != ".json":
            path.unlink()
    return totals, num_written


def _write_part(dataset: Dataset, surveyed: Survey, shard: ShardName, out: Path, to: Format) -> Counts:
    with Part(out, shard, dataset=dataset, survey=surveyed) as part:
        to.write(part, dataset.samples(shard, verify=True))
        return part.finish()


def _check_plan(out: Path, configuration: dict[str, Any]) -> None:
    """Raise PlanError where OUT holds anything but the beginning, or all, of this export."""
    if not (out / _PLAN).exists():
        if out.exists() and any(path.name != FOLDER for path in out.iterdir()):
            raise PlanError(f"{out}: is not empty, and holds no export; name a new folder, or empty this one")
        return
    before = msgspec.json.decode((out / _PLAN).read_bytes())
    now = msgspec.json.decode(msgspec.json.encode(configuration))
    differing = [name for name, value in now.items() if before.get(name) != value]
    if differing:
        told = "; ".join(f"{name} was {shown(before.get(name))}, and is {shown(now[name])}" for name in differing)
        raise PlanError(f"{out}: holds an export of another configuration: {told}; name a new folder")


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Keep a second process out; the lock goes with its process, however that ends."""
    path = out / _LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise PlanError(f"{out}: another process is writing this export; wait for it to end") from error
        yield
