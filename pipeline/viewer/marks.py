"""Marks that a person makes while looking: keep, bad, a note. Saved as a filter list, which every command accepts."""

import fcntl
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from schemas.filters import load_filter
from schemas.folder import DatasetError
from schemas.tables import FILTER_SCHEMA, FilterRow

MARKS_FILE = "marks.jsonl"
"""The name of a data set's own marks, beside its shards."""
_MAX_NOTE = 2000

MarkId = tuple[str, str | None]
"""Key and region id; None for the image as a whole."""


class Marks:
    """The marks of one data set, in a local JSON lines file that is replaced whole at each change."""

    def __init__(self, path: Path) -> None:
        """Read the marks at `path`; a file that is not there holds none. Raises DatasetError for a damaged one."""
        self.path = path
        self._lock = threading.Lock()
        if path.suffix != ".jsonl":
            raise DatasetError(f"{path}: marks are JSON lines; name the file *.jsonl")
        if not path.parent.is_dir():
            raise DatasetError(f"{path}: its folder is not there; make it, or give another --marks FILE")
        self._rows = self._read()

    def rows(self) -> list[FilterRow]:
        """Return all marks, sorted by key and region."""
        return [self._rows[mark_id] for mark_id in sorted(self._rows, key=lambda pair: (pair[0], pair[1] or ""))]

    def get(self, key: str, region_id: str | None) -> FilterRow | None:
        """Return the mark of a region, or with None of an image."""
        return self._rows.get((key, region_id))

    def put(self, key: str, region_id: str | None, *, keep: bool | None, note: str | None) -> FilterRow | None:
        """Set or, with neither decision nor note, remove a mark; return it as it is now.

        A note without a decision keeps what it is about. Marks that another viewer made meanwhile stay. Raises
        DatasetError for too long a note or when the file was damaged meanwhile, OSError when it cannot be written.
        """
        note = (note or "").strip() or None
        if note is not None and len(note) > _MAX_NOTE:
            raise DatasetError(f"the note has {len(note)} characters; {_MAX_NOTE} are allowed")
        with self._lock, locked(self.path.parent):
            rows = self._read()
            rows.pop((key, region_id), None)
            if keep is not None or note is not None:
                rows[key, region_id] = FilterRow(key=key, region_id=region_id, keep=keep is not False, note=note)
            self._rows = rows
            self._write()
        return self.get(key, region_id)

    def _read(self) -> dict[MarkId, FilterRow]:
        if not self.path.exists():
            return {}
        names = FILTER_SCHEMA.names
        rows = (FilterRow(**{name: row[name] for name in names}) for row in load_filter(self.path).rows.to_pylist())
        return {(row.key, row.region_id): row for row in rows}

    def _write(self) -> None:
        temporary = self.path.with_name(f".{self.path.name}.{secrets.token_hex(8)}")
        try:
            with temporary.open("xb") as file:
                file.write(b"".join(msgspec.json.encode(row) + b"\n" for row in self.rows()))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which other viewers of the same marks wait for."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
