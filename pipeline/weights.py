"""Finding a model's files by one name: a local path, a mini that ships with the package, or a hub id.

Hub ids are looked up in the local cache first, then fetched. What is found is named by the sha256 of its files, or by
the hub's commit: the fingerprint holds it, so changed weights never mix with others in one data set.
"""

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.minis.store import mini_folder

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")
_SETTINGS = (".json", ".txt", ".model", ".jinja")
"""Files beside the weights that decide the output too: configuration, tokenizer, preprocessing, decoding."""
_NOT_SETTINGS = ("recipe.json", "figures.json")
"""What our minis carry beside them."""


class WeightsNotFoundError(ValueError):
    """A model's files are not to be had; the message names the flag that takes a local path. Commands exit 2 on it."""


@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """Where a model's files are, and what names them."""

    path: Path
    """The file or folder."""
    name: str
    """As it was asked for: a path's last component, `mini`, or the hub id."""
    revision: str | None
    """The hub's commit, where the files come from the hub."""
    sha256: str | None
    """Of the weights files; None where `revision` names them."""

    def identity(self) -> dict[str, Any]:
        """Return what the provenance holds."""
        return {"model": self.name, "revision": self.revision, "sha256": self.sha256}

    def fingerprint(self) -> str:
        """Return what the fingerprint holds: it names the weights, wherever they lie."""
        return f"sha256:{self.sha256}" if self.revision is None else f"{self.name}@{self.revision}"


def find_model(name: str, *, mini: str, flag: str, revision: str | None = None) -> ModelFiles:
    """Return the files of the model called `name`: `mini`, an existing path, or a hub id (at `revision`).

    `mini` says which one ships for this use, `flag` which flag named the model. Raises WeightsNotFoundError.
    """
    if name == "mini":
        path = mini_folder(mini)
        return ModelFiles(path=path, name="mini", revision=None, sha256=sha256_of(path))
    if Path(name).exists():
        path = Path(name).resolve()
        return ModelFiles(path=path, name=path.name, revision=None, sha256=sha256_of(path))
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise WeightsNotFoundError(f"{flag} {name}: there is no such file or folder; give a local path or a hub id")
    path = _from_hub(name, flag, revision)
    return ModelFiles(path=path, name=name, revision=path.name, sha256=None)


def _from_hub(name: str, flag: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        pass  # not in the cache: fetch it
    try:
        return Path(snapshot_download(name, revision=revision))
    except (OSError, HfHubHTTPError) as error:
        raise WeightsNotFoundError(
            f"{flag} {name}: not in the local cache, and the hub cannot be reached ({type(error).__name__}); "
            f"download it elsewhere and give {flag} the path of its folder"
        ) from error


@functools.cache
def sha256_of(path: Path) -> str:
    """Return the sha256 of a weights file, or of a folder's weights and settings by name and content; once a process.

    Raises WeightsNotFoundError for a folder without weights.
    """
    files = [path] if path.is_file() else sorted(file for file in path.iterdir() if _decides(file))
    if not any(file.suffix in _WEIGHTS for file in files):
        raise WeightsNotFoundError(f"{path}: the folder has no weights ({', '.join(_WEIGHTS)})")
    digests = []
    for file in files:
        with file.open("rb") as opened:
            digests.append(hashlib.file_digest(opened, "sha256").hexdigest())
    if path.is_file():
        return digests[0]
    named = "\n".join(f"{file.name} {digest}" for file, digest in zip(files, digests, strict=True))
    return hashlib.sha256(named.encode()).hexdigest()


def _decides(file: Path) -> bool:
    return file.suffix in _WEIGHTS or (file.suffix in _SETTINGS and file.name not in _NOT_SETTINGS)
