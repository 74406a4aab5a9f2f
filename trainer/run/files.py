"""The files of a run, and the one that a name means: without torch, so that a wrong name is told at once."""

from pathlib import Path

from trainer.errors import TrainingError
from trainer.model.formats import CONFIG, LOCAL_DIR

LAST, BEST = "last.pt", "best.pt"
CLIP, DETECTOR, SEGMENTER = "clip", "detector.pt", "segmenter.pt"
"""In the run of a detector or a segmenter: the CLIP that it stands on, and its latest checkpoint."""
_GIVE = "give a run's folder or checkpoint, an open_clip folder, or MODEL:TAG or MODEL:FILE of open_clip"


def find_checkpoint(name: str) -> Path | None:
    """Return the checkpoint that `name` means; None where it means a model of open_clip, known by name or a folder.

    Raises TrainingError where it means a file or a folder, and no model is there.
    """
    path = Path(name)
    if (path / CONFIG).is_file():
        return None
    is_folder = path.is_dir()
    if is_folder:
        if (path / CLIP / CONFIG).is_file():
            raise TrainingError(
                f"CHECKPOINT {name}: a detector's or segmenter's run, which `fineclip detect evaluate` and `segment "
                f"evaluate` measure; the CLIP that it stands on is {path / CLIP}"
            )
        path = next((path / file for file in (BEST, LAST) if (path / file).exists()), path / LAST)
    if path.suffix == ".pt" and (is_folder or path.is_file() or ":" not in name):  # 2026-01-31T10:00/last.pt is a file
        if not path.exists():
            hint = (
                f"; {BEST} is kept by runs with --eval-every alone, the latest is {LAST}" if path.name == BEST else ""
            )
            raise TrainingError(f"{path}: no checkpoint is there{hint}")
        return path
    if path.is_file():
        raise TrainingError(f"CHECKPOINT {name}: is no checkpoint (.pt); {_GIVE}")
    model = name.partition(":")[0]
    if "/" in model and model != LOCAL_DIR.rstrip(":"):
        raise TrainingError(f"CHECKPOINT {name}: there is no such file or folder; {_GIVE}")
    return None
