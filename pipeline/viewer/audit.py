"""The filters of an audit as sliders: what thresholds drop, alone and together, and what lies on both sides of one.

The audit's measures are asked where they lie, in a database of their own. What is chosen becomes a filter list in the
audit's folder.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from pipeline.audit.filters import BY_NAME, Filter
from pipeline.audit.layout import CHOSEN, MEASURES, REPORT, read_measures
from pipeline.audit.listing import write_filter_list
from pipeline.viewer.gallery import RegionId, load_regions
from pipeline.viewer.selection import SelectionError
from pipeline.viewer.table import RegionTable, not_a_pattern, quoted
from schemas.folder import DatasetError

NUM_BINS = 48
NUM_SHOWN = 8
"""Regions on either side of a threshold."""
_MEMORY = "1GiB"
SHOW = "show"
"""Parameter that names the filter whose regions are shown."""


class AuditTable:
    """The measures of an audit."""

    def __init__(self, out: str) -> None:
        """Open the audit in the folder `out`. Raises DatasetError where none is."""
        self.out = Path(out)
        try:
            self._said = msgspec.json.decode((self.out / REPORT).read_bytes(), type=dict[str, Any])
        except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError) as error:
            raise DatasetError(f"{out}: holds no finished audit; run `fineclip audit DATA {out}`") from error
        self._shards = sorted(path.stem for path in (self.out / MEASURES).glob("*.parquet"))
        self._connection = duckdb.connect(
            config={"autoinstall_known_extensions": False, "autoload_known_extensions": False, "temp_directory": ""}
        )
        folder = str((self.out / MEASURES).resolve())
        readable = ", ".join(quoted(spelled) for spelled in (folder, not_a_pattern(folder)))
        for setting in (
            f"memory_limit = '{_MEMORY}'",
            f"allowed_directories = [{readable}]",
            "enable_external_access = false",
            "lock_configuration = true",
        ):
            self._connection.execute(f"SET {setting}")
        paths = ", ".join(quoted(f"{not_a_pattern(folder)}/{shard}.parquet") for shard in self._shards)
        self._rows = f"read_parquet([{paths}], hive_partitioning = false)"

    def close(self) -> None:
        """Free the database."""
        self._connection.close()

    def about(self) -> dict[str, Any]:
        """Return the filters that have numbers, each with a histogram of them, and what the audit recommends."""
        measured = [each for each in self._said["filters"] if each["measured"]]
        return {
            "path": str(self.out),
            "overlays": self._said["overlays"],
            "regions": self._said["regions"]["audited"],
            "images": self._said["images"]["audited"],
            "filters": [self._filter(BY_NAME[each["name"]], each) for each in measured if each["name"] in BY_NAME],
        }

    def _filter(self, of: Filter, said: Mapping[str, Any]) -> dict[str, Any]:
        low, high = max(of.low, said["least"]), min(of.high, said["most"])
        low, high = of.low + of.step * ((low - of.low) // of.step), of.low + of.step * -((of.low - high) // of.step)
        high = max(high, low + of.step)
        names = ("name", "title", "drops", "keeps", "recommended", "reason", "threshold")
        return {
            **{name: said[name] for name in names},
            "of_images": of.of_images,
            "ends": [round(low, 6), round(high, 6)],
            "step": of.step,
            "bins": self._bins(of, low, high),
        }

    def _bins(self, of: Filter, low: float, high: float) -> list[int]:
        place = f"least(greatest(floor(({of.column} - ?) / ?), 0), {NUM_BINS - 1})::INTEGER"
        found = self._query(
            f"SELECT {place} AS bin, count(*) FROM {self._rows} "
            f"WHERE {of.column} IS NOT NULL AND region_id IS NOT NULL GROUP BY bin",
            [low, (high - low) / NUM_BINS],
        )
        bins = [0] * NUM_BINS
        for position, count in found:
            bins[position] = count
        return bins

    def drops(self, thresholds: Mapping[str, float]) -> dict[str, Any]:
        """Return what the thresholds, by name of the filter, drop: together, each, and each of them alone."""
        names = list(thresholds)
        flags = "".join(f", {_condition(BY_NAME[name])} AS d{at}" for at, name in enumerate(names))
        times = " + ".join(["0", *(f"d{at}::INTEGER" for at in range(len(names)))])
        counts = "".join(
            f", count_if(is_region AND d{at}), count_if(is_region AND d{at} AND times = 1)" for at in range(len(names))
        )
        ((regions, images, gone, images_gone, *each),) = self._query(
            f"WITH flagged AS (SELECT region_id IS NOT NULL AS is_region{flags} FROM {self._rows}), "
            f"counted AS (SELECT *, {times} AS times FROM flagged) "
            "SELECT count_if(is_region), count_if(NOT is_region), count_if(is_region AND times > 0), "
            f"count_if(NOT is_region AND times > 0){counts} FROM counted",
            list(thresholds.values()),
        )
        return {
            "regions": regions,
            "images": images,
            "regions_dropped": gone,
            "images_dropped": images_gone,
            "each": {name: {"dropped": each[2 * at], "only": each[2 * at + 1]} for at, name in enumerate(names)},
        }

    def sides(self, table: RegionTable, name: str, threshold: float) -> dict[str, Any]:
        """Return the regions nearest to a threshold, of those that it drops and of those that it keeps."""
        of = BY_NAME[name]
        drops = _condition(of)
        sides = {}
        for side, condition in (("dropped", drops), ("kept", f"NOT {drops}")):
            found = self._query(
                f"SELECT shard, key, region_id, {of.column} FROM {self._rows} WHERE region_id IS NOT NULL "
                f"AND {of.column} IS NOT NULL AND {condition} ORDER BY abs({of.column} - ?), shard, key, region_id "
                f"LIMIT {NUM_SHOWN}",
                [threshold, threshold],
            )
            values: dict[RegionId, float] = {(shard, key, region): value for shard, key, region, value in found}
            items = load_regions(table, list(values))
            sides[side] = [{"item": item, "value": values[item.shard, item.key, item.regions[0].id]} for item in items]
        return sides

    def choose(self, thresholds: Mapping[str, float]) -> dict[str, Any]:
        """Write the filter list of the thresholds, and say where it is. Raises OSError."""
        path = self.out / CHOSEN
        num_rows = write_filter_list(path, (read_measures(self.out, shard) for shard in self._shards), thresholds)
        return {"path": str(path), "rows": num_rows}

    def _query(self, sql: str, parameters: list[Any]) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            return cursor.execute(sql, parameters).fetchall()


def _condition(of: Filter) -> str:
    """Return SQL that is true for what a filter drops; its parameter is the threshold."""
    return f"coalesce({of.column} {'<' if of.keeps == 'at least' else '>'} ?::FLOAT, false)"


def parse_thresholds(pairs: Mapping[str, str]) -> tuple[dict[str, float], str | None]:
    """Return thresholds by filter, and the filter to show. Raises SelectionError for what is none."""
    thresholds = {}
    for name, text in pairs.items():
        if name == SHOW:
            continue
        if name not in BY_NAME:
            raise SelectionError(f"no filter {name}; there are {', '.join(BY_NAME)}")
        thresholds[name] = check_threshold(name, text)
    show = pairs.get(SHOW)
    if show is not None and show not in thresholds:
        raise SelectionError(f"{SHOW}={show}: give a threshold of that filter too")
    return thresholds, show


def check_threshold(name: str, value: str | float) -> float:
    """Return a threshold as a number. Raises SelectionError for what is no finite one."""
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if not abs(number) < float("inf"):
        raise SelectionError(f"{name}={str(value)[:40]}: give a finite number")
    return number
