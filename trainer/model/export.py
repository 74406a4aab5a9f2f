"""A trained model for others: weights under open_clip's names or the original EVA-CLIP's, or a `local-dir:` folder.

Weights may be averaged with those that training started from (`alpha` of the trained ones), as CLIPSelf does.
"""

import contextlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from schemas.store_errors import StorageError, in_words
from trainer.errors import TrainingError
from trainer.model.eva_weights import State, to_original
from trainer.model.formats import CONFIG, LOCAL_DIR, ExportFormat
from trainer.model.open import LoadedModel
from trainer.model.saved_file import save_tensors

WEIGHTS = "open_clip_model.safetensors"
_WEIGHT_SUFFIXES = {".safetensors", ".bin", ".pt", ".pth"}


def average_weights(trained: Mapping[str, Tensor], start: Mapping[str, Tensor], alpha: float) -> State:
    """Return `alpha` of the trained weights plus the rest of the start's, tensor by tensor.

    Raises TrainingError for an `alpha` outside 0..1.
    """
    if not 0 <= alpha <= 1:
        raise TrainingError(f"--alpha {alpha}: a share of the trained weights, from 0 to 1")
    if alpha == 1:
        return dict(trained)
    return {
        name: torch.lerp(start[name].float(), tensor.float(), alpha) if tensor.is_floating_point() else tensor
        for name, tensor in trained.items()
    }


def export(state: Mapping[str, Tensor], model: LoadedModel, path: Path, kind: ExportFormat) -> None:
    """Write a model's `state` to the file `path`, or for `local-dir` to the folder.

    `model` says the architecture. Raises TrainingError where the format does not know it, StorageError where the folder
    cannot be written.
    """
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    if kind == "local-dir":
        _export_folder(tensors, model, path)
        return
    if path.is_dir():
        raise StorageError(f"{path}: is a folder, where a file is to be written: name a file in it")
    content = tensors if kind == "open_clip" else {"state_dict": to_original(tensors, model.clip)}
    partial = path.with_name(f"{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            save_tensors(content, file)
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise in_words(error, str(path)) from error


def _export_folder(tensors: State, model: LoadedModel, folder: Path) -> None:
    """Write configuration, weights and, where the model came with one, its tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    if model.name.startswith(LOCAL_DIR):
        for file in sorted(Path(model.name.removeprefix(LOCAL_DIR)).iterdir()):
            is_kept = file.suffix not in _WEIGHT_SUFFIXES and file.name != "README.md"
            target = folder / file.name
            if file.is_file() and is_kept and not (target.exists() and target.samefile(file)):
                shutil.copyfile(file, target)
    partial = folder / f"{WEIGHTS}.partial"
    partial.touch()
    mode = partial.stat().st_mode  # what the user's umask says; safetensors' own files are the owner's alone
    try:
        safetensors.torch.save_file(tensors, partial)
    except safetensors.SafetensorError as error:  # a full disk, told in words alone
        partial.unlink(missing_ok=True)
        raise StorageError(f"{folder}: {error}: free space, then run the same command again") from error
    partial.chmod(mode)
    partial.replace(folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(model.config, indent=2) + "\n", encoding="utf-8")
