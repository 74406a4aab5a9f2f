"""Where a command writes, looked at before hours of work: what is in the way is said first."""

import os
import tempfile
from pathlib import Path

from schemas.store_errors import StorageError, check_here


def check_folder(path: str, named: str) -> None:
    """Raise StorageError unless the folder `path` may be written, or made; `named` is how it is given: `--out`."""
    check_here(path, named)
    _check_parent(Path(path), f"{named} {path}", named)


def check_file(path: str, named: str) -> None:
    """Raise StorageError unless the file `path` may be written, in a folder that is there or can be made."""
    check_here(path, named)
    file = Path(path)
    if file.is_dir():
        raise StorageError(f"{named} {path}: a folder is in the way: name a file")
    if os.path.lexists(file) and not os.access(path, os.W_OK):
        raise StorageError(f"{named} {path}: permission denied: choose another {named}")
    _check_parent(file.parent, f"{named} {path}", named)


def _check_parent(folder: Path, where: str, named: str) -> None:
    """Look at a folder, or at the nearest one above it that is there."""
    nearest = next(place for place in (folder, *folder.parents, Path("/")) if os.path.lexists(place))
    if not nearest.is_dir():
        raise StorageError(f"{where}: a file is in the way ({nearest}): choose another {named}")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise StorageError(f"{where}: permission denied: choose another {named}")
    try:  # rights are not all: file systems may be read-only, full, or none that files are made on
        Path(tempfile.mkdtemp(prefix=".fineclip-", dir=nearest)).rmdir()
    except OSError as error:
        raise StorageError(f"{where}: {error.strerror}: choose another {named}") from error
