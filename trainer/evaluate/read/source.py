"""How evaluation data are written, `[KIND:]PATH[?option=value&...]`, and who reads them."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from schemas.dataset import Dataset
from trainer.errors import TrainingError
from trainer.evaluate.read import captions, coco, fgovd, shards
from trainer.evaluate.read.wrong import wrong_captions
from trainer.evaluate.settings import TruthSettings
from trainer.evaluate.truth import Truth


class _Kind(NamedTuple):
    read: Callable[..., Truth]
    options: tuple[str, ...]
    templates: str


_KINDS = {
    "coco": _Kind(coco.read, coco.OPTIONS, "vild"),
    "karpathy": _Kind(captions.read_karpathy, captions.KARPATHY_OPTIONS, "short"),
    "captions": _Kind(captions.read_list, captions.OPTIONS, "short"),
    "fgovd": _Kind(fgovd.read, fgovd.OPTIONS, "short"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanted:
    """What of a truth is going to be asked for; what is not is not read."""

    masks: bool = False
    wrong: bool = False
    """Wrong captions of regions."""


def default_templates(data: str) -> str:
    """Return the name of the sentences that a kind of data is measured with unless it is said."""
    kind, _ = _split_kind(data)
    return "short" if kind is None else _KINDS[kind].templates


def open_truth(
    data: str,
    *,
    split: str,
    settings: TruthSettings,
    wanted: Wanted,
    overlays: Sequence[str] = (),
    filters: Sequence[str] = (),
) -> Truth:
    """Return the truth of `data`: a data set of ours (its `split`, `overlays` and `filters`), or a benchmark's file.

    Raises TrainingError, naming the file and what to do, where it cannot be used; DatasetError for our own.
    """
    kind, rest = _split_kind(data)
    if kind is None:
        dataset = Dataset.open(data, overlays=overlays, filters=filters)
        truth = shards.read(dataset, split, settings, masks=wanted.masks, wrong=wanted.wrong)
    else:
        if overlays or filters:
            raise TrainingError(f"--data {data}: --overlay and --filter are for data sets of `fineclip annotate`")
        path, options = _split_options(data, rest, _KINDS[kind].options)
        truth = _KINDS[kind].read(path, options, settings, masks=wanted.masks)
        if wanted.wrong and truth.alternatives is None:
            made = wrong_captions(truth.region_captions, truth.labels, most=settings.wrong_captions)
            truth = dataclasses.replace(truth, alternatives=made)
    if not len(truth.images):
        raise TrainingError(f"--data {data}: there is no image in it")
    return truth


def _split_kind(data: str) -> tuple[str | None, str]:
    """Split `kind:rest`; URLs, and what lies there under the whole name, are data sets."""
    kind, colon, rest = data.partition(":")
    if not colon or "/" in kind or rest.startswith(("//", ":")) or _is_there(data):
        return None, data
    if kind not in _KINDS:
        known = ", ".join(_KINDS)
        raise TrainingError(f"--data {data}: no such kind of data: {kind}; there are {known}, and folders")
    return kind, rest


def _is_there(path: str) -> bool:
    try:
        return Path(path).exists()
    except OSError:  # longer than any name can be
        return False


def _split_options(data: str, rest: str, known: Sequence[str]) -> tuple[str, Mapping[str, str]]:
    path, mark, query = rest.partition("?")
    options: dict[str, str] = {}
    for pair in query.split("&") if mark else ():
        name, equals, value = pair.partition("=")
        if not equals or name not in known or name in options:
            raise TrainingError(f"--data {data}: {pair!r} is none of its options once: {', '.join(known)}")
        options[name] = unquote(value)
    return path, options
