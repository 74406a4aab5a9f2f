"""Whether a model's files are all there and whole, seen without loading them: a download can end early, and a clone
without Git LFS has a few lines in the place of each large file.
"""

import json
import re
from pathlib import Path

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")
"""Endings of files of weights: of the first of which there is any, they are loaded."""
_LEFTOVERS = ("training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.bin", "scheduler.pt", "rng_state.pth")
"""What trainers leave beside a model's weights, with the endings of weights."""
_USUAL = ("model", "pytorch_model")
"""Stems of the file that transformers takes; what lies beside it may be a variant, such as `model.fp16`."""
_SHARD = re.compile(r".+-\d{5}-of-\d{5}")
"""Name of a file that holds a part of the weights; an index names them all."""
_POINTER = b"version https://git-lfs.github.com/spec/"
_LENGTH = 8
"""Bytes at the start of a safetensors that say how long its header is."""


class BrokenIndexError(ValueError):
    """An index of weights names none; the message begins with the name of its file."""


def loaded_weights(folder: Path) -> list[Path]:
    """Return the files of weights that are loaded: all that their index names, which need not be there, or those of
    their own; nothing where there are none, or a part of them without its index. Raises BrokenIndexError.
    """
    for suffix in WEIGHTS:
        if indexes := sorted(folder.glob(f"*{suffix}.index.json")):
            return [folder / name for name in sorted({name for index in indexes for name in _named_by(index)})]
        files = [file for file in sorted(folder.glob(f"*{suffix}")) if file.name not in _LEFTOVERS]
        files = [file for file in files if file.stem in _USUAL] or files
        if files:
            return [] if all(_SHARD.fullmatch(file.stem) for file in files) else files
    return []


def _named_by(index: Path) -> list[str]:
    try:
        names = [*json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()]
        if names and all(isinstance(name, str) for name in names):
            return names
    except (ValueError, KeyError, TypeError, AttributeError):  # no JSON, or of another form
        pass
    raise BrokenIndexError(_pointer(index) or f"{index.name} is no index of weights: download it anew")


def damage(path: Path) -> str | None:
    """Return what is wrong with a file of weights, or with a folder of weights and settings, and what to do about it.

    None where nothing can be seen to be.
    """
    if path.is_file():
        return _file_damage(path)
    try:
        weights = loaded_weights(path)
    except BrokenIndexError as error:
        return str(error)
    if not weights or not all(map(Path.is_file, weights)):
        return (
            f"the folder has no weights ({', '.join(WEIGHTS)}), or not all that its index names; "
            "give one that save_pretrained or `hf download ID --local-dir FOLDER` has written"
        )
    return next(filter(None, map(_file_damage, [*sorted(path.glob("*.json")), *weights])), None)


def _file_damage(file: Path) -> str | None:
    if (found := _pointer(file)) or file.suffix != ".safetensors":
        return found
    size = file.stat().st_size
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(_LENGTH), "little")
        header = opened.read(length) if length <= size else b""
    try:
        ends = [entry["data_offsets"][1] for name, entry in json.loads(header).items() if name != "__metadata__"]
        wanted = _LENGTH + length + max(ends)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return f"{file.name} ({size:,} bytes) is no safetensors, or the first part of one: download it anew"
    if size < wanted:
        return f"{file.name} has {size:,} of the {wanted:,} bytes that its header names: download it anew"
    return None


def _pointer(file: Path) -> str | None:
    with file.open("rb") as opened:
        if opened.read(len(_POINTER)) != _POINTER:
            return None
    return f"{file.name} is a pointer of Git LFS, not the file: run `git lfs pull` there, or download the file"
