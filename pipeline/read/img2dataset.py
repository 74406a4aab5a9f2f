"""The Parquet that img2dataset writes beside a tar: what it downloaded, and with which caption, address and licence."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.read.base import SourceError
from pipeline.read.location import Location
from pipeline.read.parquet_files import DamagedParquetError, find_name, open_parquet
from pipeline.read.spec import tar_stem


@dataclass(frozen=True, kw_only=True)
class SidecarRow:
    """What the sidecar says of one sample; None where it says nothing."""

    caption: str | None = None
    url: str | None = None
    license: str | None = None


@dataclass(frozen=True, kw_only=True)
class Sidecar:
    """A tar's sidecar: the samples that were written to the tar."""

    names: tuple[str, ...] = ()
    """Of the samples that the tar must hold."""
    rows: dict[str, SidecarRow] = field(default_factory=dict)
    """By the name of the sample."""

    def missing(self, found: Iterable[str]) -> list[str]:
        """Return the names of samples that must be in the tar and are not among those `found`.

        A name is "" where the sidecar's names are not those of the tar, so that only the number is known.
        """
        planned, there = Counter(self.names), Counter(found)
        if there and not planned.keys() & there.keys():
            return [""] * (planned.total() - there.total())
        return list((planned - there).elements())

    def row(self, name: str) -> SidecarRow:
        """Return what is said of the sample `name`."""
        return self.rows.get(name, SidecarRow())


def sidecar_uri(tar_uri: str) -> str:
    """Return where a tar's sidecar lies, if it has one."""
    return f"{tar_stem(tar_uri)}.parquet"


def planned_samples(location: Location, tar_uri: str) -> int | None:
    """Return how many samples the sidecar says the tar holds, reading two columns; None without a sidecar.

    Raises SourceError for a sidecar that cannot be read.
    """
    table = _read(location, tar_uri, ("key", "status"))
    return None if table is None else _successes(table).num_rows


def load_sidecar(location: Location, tar_uri: str) -> Sidecar:
    """Return a tar's sidecar, an empty one if there is none. Raises SourceError if it cannot be read."""
    table = _read(location, tar_uri, ("status", "key", "caption", "text", "url", "license"))
    if table is None:
        return Sidecar()
    rows = _successes(table).to_pylist()
    # the first of equal names counts, as it does in the tar
    by_name = {str(row["key"]): _row(row) for row in reversed(rows)}
    return Sidecar(names=tuple(str(row["key"]) for row in rows), rows=by_name)


def _row(row: dict[str, Any]) -> SidecarRow:
    return SidecarRow(
        caption=_text(row.get("caption") or row.get("text")),
        url=_text(row.get("url")),
        license=_text(row.get("license")),
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _read(location: Location, tar_uri: str, wanted: Sequence[str]) -> pa.Table | None:
    """Return the wanted columns, renamed to lower case; None where there is no sidecar of img2dataset's.

    The table of one of our own shards lies at the same place: its `region_id` tells it apart.
    """
    uri = sidecar_uri(tar_uri)
    try:
        with open_parquet(location, uri) as parquet:
            names = parquet.schema_arrow.names
            if find_name(names, ["key"]) is None or find_name(names, ["region_id"]) is not None:
                return None
            found = {name: column for name in wanted if (column := find_name(names, [name])) is not None}
            table = parquet.read(columns=list(found.values()))
            return table.rename_columns({column: name for name, column in found.items()})
    except FileNotFoundError:
        return None
    except DamagedParquetError as error:
        raise SourceError(
            f"{location.url(uri)}: cannot be read ({error}); restore it, or take it away to go on with "
            f"{tar_uri} alone, without its addresses and licences"
        ) from error


def _successes(table: pa.Table) -> pa.Table:
    """Return the rows of samples in the tar: img2dataset lists the downloads that failed too."""
    if "status" not in table.column_names:
        return table
    return table.filter(pc.equal(table.column("status"), "success"))
