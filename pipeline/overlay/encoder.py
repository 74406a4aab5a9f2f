"""A CLIP that looks at the regions of a shard and reads their captions.

Crops are those that captioners see, each a picture of its own, prepared by the model's own rules. They are batched in
the order of the shard, so a shard's features depend on the shard alone, whoever makes them. A caption that is longer
than the model's context is read as far as that goes.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.backends import require
from pipeline.errors import WorkError
from pipeline.models.device import Device
from pipeline.models.licenses import Licensed, model_license
from pipeline.models.weights import ModelFiles, WeightsNotFoundError, find_model, sha256_of
from pipeline.sample import Pixels

if TYPE_CHECKING:
    from pipeline.caption.clip import LoadedClip

FLAG = "--model"
MINI = "clip"
_LOCAL_DIR, _HUB = "local-dir:", "hf-hub:"
_CONFIG = "open_clip_config.json"

Features = npt.NDArray[np.float32]
"""`[N, D]` float32, each row of length 1."""


@dataclass(frozen=True, kw_only=True)
class FoundClip:
    """A CLIP's files, and how open_clip is asked for it."""

    files: ModelFiles
    architecture: str | None = None
    """open_clip's name of it, for weights by `tag`; None where the files' folder says all."""
    tag: str | None = None
    license: Licensed

    def identity(self) -> dict[str, Any]:
        """Return what names the model in a configuration: wherever its files lie."""
        return {"model": self.files.name, "weights": self.files.fingerprint()}


def find_clip(name: str, *, revision: str | None = None, stated_license: str | None = None) -> FoundClip:
    """Return the CLIP called `name`: `mini`, a folder in open_clip's layout, ARCHITECTURE:TAG of open_clip, a hub id.

    Raises WeightsNotFoundError where it is not there or is none, and ImportError where open_clip is missing.
    """
    require("open_clip", what="a CLIP", install="pip install open_clip_torch")
    given, name = name, name.removeprefix(_LOCAL_DIR).removeprefix(_HUB)
    architecture, colon, tag = name.partition(":")
    terms = model_license(name, mini=MINI, stated=stated_license)
    if colon and not Path(name).exists():
        return FoundClip(files=_tagged(architecture, tag), architecture=architecture, tag=tag, license=terms)
    if given.startswith(_LOCAL_DIR) and not Path(name).is_dir():
        raise WeightsNotFoundError(f"{FLAG} {given}: there is no such folder")
    files = find_model(name, mini=MINI, flag=FLAG, revision=revision)
    if not (files.path / _CONFIG).is_file():
        raise WeightsNotFoundError(
            f"{FLAG} {given}: has no {_CONFIG}: give a folder in open_clip's layout (of a run of `fineclip train` it "
            "is RUN/model, or what `fineclip export-model --format local-dir` writes)"
        )
    return FoundClip(files=files, license=terms)


def _tagged(architecture: str, tag: str) -> ModelFiles:
    """Return the weights that open_clip knows by tag, from its cache; fetched where they are not in there."""
    import open_clip

    named = f"{FLAG} {architecture}:{tag}"
    found = open_clip.pretrained.get_pretrained_cfg(architecture, tag)
    if not found:
        tags = open_clip.list_pretrained_tags_by_model(architecture)
        known = f"its tags are {', '.join(tags)}" if tags else "open_clip has no weights of that architecture"
        raise WeightsNotFoundError(f"{named}: {known}")
    try:
        path = Path(open_clip.pretrained.download_pretrained(found))
    except (OSError, RuntimeError, ValueError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsNotFoundError(
            f"{named}: not in the cache, and cannot be fetched ({first}); fetch it elsewhere and give the path of a "
            "folder in open_clip's layout"
        ) from error
    return ModelFiles(path=path, name=f"{architecture}:{tag}", revision=None, sha256=sha256_of(path.resolve()))


class Encoder:
    """A loaded CLIP."""

    def __init__(self, found: FoundClip, *, device: Device, batch_size: int) -> None:
        """Load it. Raises WorkError where open_clip cannot, or the model has no tower for texts or for images."""
        from pipeline.caption import clip

        self._batch_size = batch_size
        resolved = device.resolve()
        try:
            if found.architecture is None:
                self._clip: LoadedClip = clip.load(found.files.path, device=resolved)
            else:
                self._clip = clip.load_tagged(found.architecture, str(found.tag), device=resolved)
        except Exception as error:  # open_clip raises anything for a folder that is odd
            raise WorkError(
                f"{FLAG} {found.files.name}: open_clip cannot load this as a CLIP of images and texts "
                f"({type(error).__name__}: {error})"
            ) from error
        lacking = [tower for tower in ("encode_image", "encode_text") if not hasattr(self._clip.model, tower)]
        if lacking or not hasattr(self._clip.model, "logit_scale"):
            raise WorkError(f"{FLAG} {found.files.name}: has no tower for texts, or none for images; take a CLIP")

    def images(self, crops: Iterator[Pixels]) -> Features:
        """Return the features of crops (`[h, w, 3]` uint8 RGB each); a batch of them is in memory at a time."""
        from pipeline.caption.clip import encode_crops

        parts, waiting = [], list[Pixels]()
        for crop in crops:
            waiting.append(crop)
            if len(waiting) == self._batch_size:
                parts.append(encode_crops(self._clip, waiting, batch_size=self._batch_size).cpu().numpy())
                waiting = []
        if waiting:
            parts.append(encode_crops(self._clip, waiting, batch_size=self._batch_size).cpu().numpy())
        return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)

    def texts(self, captions: Sequence[str]) -> Features:
        """Return the features of captions."""
        from pipeline.caption.clip import encode_captions

        if not captions:
            return np.zeros((0, 0), np.float32)
        found: Features = encode_captions(self._clip, captions, batch_size=self._batch_size).cpu().numpy()
        return found

    def num_cut(self, captions: Sequence[str]) -> int:
        """Return how many captions are longer than the model's context, and so are not read to their end."""
        tokenizer = self._clip.tokenizer
        length = getattr(tokenizer, "context_length", None)
        if not captions or length is None:
            return 0
        with suppress(TypeError):  # a tokenizer that takes no length
            blank = int(tokenizer([""], context_length=length + 1)[0, -1])
            return int((tokenizer(list(captions), context_length=length + 1)[:, -1] != blank).sum())
        return 0
