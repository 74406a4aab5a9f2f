"""Finding a model's files by one name: a local path, a mini that ships with the package, or a hub id.

Hub ids are looked up in the local cache first, then fetched, in one format of weights where the hub has several. A
download that was broken off is taken up again. What is found is named by the sha256 of its files, or by
the hub's commit: the fingerprint holds it, so changed weights never mix with others in one data set.
"""

import fnmatch
import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.models.shipped import mini_folder
from pipeline.models.whole import WEIGHTS, BrokenIndexError, damage, loaded_weights

_SETTINGS = (".json", ".txt", ".model", ".jinja")
"""Files beside the weights that decide the output too: configuration, tokenizer, preprocessing, decoding."""
_NOT_SETTINGS = ("recipe.json", "figures.json", "repeats.json")
"""What our minis carry beside them."""
_OTHER_FORMATS = ("*.h5", "*.msgpack", "*.ot", "*.gguf", "*.tflite", "*.onnx", "*.onnx_data", "onnx/*", "openvino/*")
"""Weights for other programs, as the hub's patterns."""
_TWINS = {
    "pytorch_model*.bin*": "model*.safetensors",
    "open_clip_pytorch_model*.bin*": "open_clip_model*.safetensors",
}
"""Pickled weights, and the safetensors that are the same, as the hub's patterns."""


class WeightsNotFoundError(ValueError):
    """A model's files cannot be found or downloaded; the message names the flag that takes a path. Commands exit 2."""

    exit_code = 2


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


def origin_of(name: str, *, mini: str | None) -> Literal["mini", "path", "hub"]:
    """Return where `find_model` looks for `name`: what ships goes before what exists here, and that before the hub."""
    if name == "mini" and mini is not None:
        return "mini"
    return "path" if Path(name).exists() else "hub"


def find_model(name: str, *, mini: str | None, flag: str, revision: str | None = None) -> ModelFiles:
    """Return the files of the model called `name`: `mini`, an existing path, or a hub id (at `revision`).

    `mini` says which one ships for this use (None if none does), `flag` which flag named the model. Raises
    WeightsNotFoundError.
    """
    origin = origin_of(name, mini=mini)
    if mini is not None and origin == "mini":
        path = mini_folder(mini)
        return ModelFiles(path=path, name="mini", revision=None, sha256=sha256_of(path))
    if origin == "path":
        path = Path(name).resolve()
        if wrong := damage(path):
            raise WeightsNotFoundError(f"{flag} {name}: {wrong}")
        return ModelFiles(path=path, name=name_of_path(Path(name)), revision=None, sha256=sha256_of(path))
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise WeightsNotFoundError(f"{flag} {name}: there is no such file or folder; give a local path or a hub id")
    path = _from_hub(name, flag, revision)
    return ModelFiles(path=path, name=name, revision=path.name, sha256=None)


def find_file(path: str, *, flag: str, what: str) -> ModelFiles:
    """Return the weights in one local file. `flag` took `path`, which must be that of `what`.

    Raises WeightsNotFoundError.
    """
    file = Path(path)
    if not file.is_file():
        raise WeightsNotFoundError(f"{flag} {path}: there is no such file; give the local path of {what}")
    if wrong := damage(file):
        raise WeightsNotFoundError(f"{flag} {path}: {wrong}")
    return ModelFiles(path=file.resolve(), name=name_of_path(file), revision=None, sha256=sha256_of(file.resolve()))


def name_of_path(path: Path) -> str:
    """Return the last component of a path, which needs not exist; of a folder's (`.`, a link) where it leads."""
    return path.resolve().name if path.is_dir() else path.name


def find_published(url: str, *, flag: str) -> ModelFiles:
    """Return the file that torchvision publishes at `url`, from torch's cache; fetched where it is not in there.

    Raises WeightsNotFoundError, naming `flag`, where it cannot be fetched, and where its sha256 is not the one whose
    first digits stand in its name (`NAME-DIGITS.pth`).
    """
    from filelock import FileLock
    from torch import hub

    name = url.rsplit("/", 1)[1]
    prefix = Path(name).stem.rsplit("-", 1)[1]
    path = Path(hub.get_dir()) / "checkpoints" / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(f"{path}.lock"):  # the workers of a machine fetch it once
                if not path.exists():
                    hub.download_url_to_file(url, str(path), hash_prefix=prefix, progress=False)
        except (OSError, RuntimeError) as error:  # no network; RuntimeError: bytes of another hash
            raise WeightsNotFoundError(
                f"{name}: not in torch's cache ({path.parent}), and cannot be fetched ({error}); "
                f"download {url} elsewhere and give {flag} its path"
            ) from error
    sha256 = sha256_of(path)
    if not sha256.startswith(prefix):
        raise WeightsNotFoundError(
            f"{path}: its sha256 {sha256} is not the published one, which begins with {prefix}; delete the file"
        )
    return ModelFiles(path=path, name=name, revision=None, sha256=sha256)


def check_pickled(files: ModelFiles, trusted: str | None, *, flag: str, hash_flag: str) -> None:
    """Raise WeightsNotFoundError unless `trusted` is the sha256 of a checkpoint, which may run code when it is loaded.

    `flag` named the checkpoint, `hash_flag` takes its hash.
    """
    if trusted is not None and files.sha256 != trusted:
        raise WeightsNotFoundError(
            f"{flag} {files.path}: its sha256 is {files.sha256}, not the one that {hash_flag} names: {trusted}"
        )
    if trusted is None:
        raise WeightsNotFoundError(
            f"{flag} {files.path}: its sha256 is {files.sha256}; a pickled checkpoint can run code when it is loaded, "
            f"so if that is the file you trust, give it as {hash_flag}"
        )


def _from_hub(name: str, flag: str, revision: str | None) -> Path:
    """Return the folder of the hub's model, fetched where the cache has not all of it. Raises WeightsNotFoundError."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        ignored = [*_OTHER_FORMATS, *_TWINS]
        path = Path(snapshot_download(name, revision=revision, local_files_only=True, ignore_patterns=ignored))
        if _has_weights(path):
            return path
    except LocalEntryNotFoundError:
        pass  # not in the cache, or known not to be all there: fetch it
    try:
        # The list of files by way of a dry run: that turns what goes wrong on the network into OSErrors.
        files = [file.filename for file in snapshot_download(name, revision=revision, dry_run=True)]
        ignored = [*_OTHER_FORMATS, *(pickled for pickled, same in _TWINS.items() if fnmatch.filter(files, same))]
        path = Path(snapshot_download(name, revision=revision, ignore_patterns=ignored))
    except (GatedRepoError, RepositoryNotFoundError) as error:
        raise WeightsNotFoundError(
            f"{flag} {name}: the hub knows no such model, or shows it to nobody who has not accepted its terms: look "
            "at its page there, then log in with `hf auth login`"
        ) from error
    except OSError as error:
        raise WeightsNotFoundError(
            f"{flag} {name}: not in the local cache, or not all of it, and the hub cannot be reached "
            f"({_reason(error)}); download it elsewhere (`hf download {name} --local-dir FOLDER`) and give "
            f"{flag} the path of its folder"
        ) from error
    if not _has_weights(path):
        raise WeightsNotFoundError(
            f"{flag} {name}: the hub has no weights of it that can be loaded here ({', '.join(WEIGHTS)}), or not all"
        )
    return path


def _reason(error: OSError) -> str:
    """Return what the network said, in a line: the hub's client wraps it in errors about a dry run."""
    cause = error.__cause__ or error
    return (str(cause).splitlines() or [type(cause).__name__])[0]


def _has_weights(folder: Path) -> bool:
    try:
        weights = loaded_weights(folder)
    except BrokenIndexError:
        return False
    return bool(weights) and all(map(Path.is_file, weights))


@functools.cache
def sha256_of(path: Path) -> str:
    """Return the sha256 of a weights file, or of a folder's weights and settings by name and content; once per process.

    Raises WeightsNotFoundError for a folder without weights.
    """
    files = [path]
    if path.is_dir():
        endings = (*WEIGHTS, *_SETTINGS)
        files = sorted(f for f in path.iterdir() if f.suffix in endings and f.name not in _NOT_SETTINGS)
    if not any(file.suffix in WEIGHTS for file in files):
        raise WeightsNotFoundError(f"{path}: the folder has no weights ({', '.join(WEIGHTS)})")
    digests = []
    for file in files:
        with file.open("rb") as opened:
            digests.append(hashlib.file_digest(opened, "sha256").hexdigest())
    if path.is_file():
        return digests[0]
    named = "\n".join(f"{file.name} {digest}" for file, digest in zip(files, digests, strict=True))
    return hashlib.sha256(named.encode()).hexdigest()
