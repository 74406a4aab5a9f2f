"""Images and their captions for retrieval.

`karpathy:FILE.json?images=DIR&split=test` reads Karpathy's `dataset_coco.json` and `dataset_flickr30k.json`;
`captions:FILE?images=DIR` reads a JSON list of `{"image": file, "caption": [...]}`, as FineCLIP's official code has
it, and Flickr30k's own `results_20130124.token`, whose lines are `file#number<TAB>caption`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.errors import TrainingError
from trainer.evaluate.read.collect import Collector
from trainer.evaluate.settings import TruthSettings
from trainer.evaluate.truth import Truth

KARPATHY_OPTIONS = ("images", "split")
OPTIONS = ("images",)


def read_karpathy(path: str, options: Mapping[str, str], settings: TruthSettings, *, masks: bool) -> Truth:
    """Return the truth of one of Karpathy's splits; masks there are none. Raises TrainingError."""
    found = Collector(where=path, settings=settings)
    split = options.get("split", "test")
    try:
        entries = [entry for entry in json.loads(_text(path))["images"] if entry["split"] == split]
        for entry in entries:
            name = "/".join(part for part in (entry.get("filepath"), entry["filename"]) if part)
            image = found.image(name)
            for sentence in entry["sentences"]:
                found.caption(image, sentence["raw"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainingError(
            f"{path}: not one of Karpathy's files, with images of 'split', 'filename' and 'sentences': {error!r}"
        ) from error
    if not entries:
        raise TrainingError(f"{path}: no image is of the split {split!r}; give another by ?split=")
    return found.truth(_folder(path, options))


def read_list(path: str, options: Mapping[str, str], settings: TruthSettings, *, masks: bool) -> Truth:
    """Return the truth of a list of captions; masks there are none. Raises TrainingError."""
    found = Collector(where=path, settings=settings)
    text = _text(path)
    by_image = _of_json(path, text) if text.lstrip().startswith("[") else _of_tokens(path, text)
    for name, captions in by_image.items():
        image = found.image(name)
        for caption in captions:
            found.caption(image, caption)
    return found.truth(_folder(path, options))


def _of_json(path: str, text: str) -> dict[str, list[str]]:
    by_image: dict[str, list[str]] = {}
    try:
        for entry in json.loads(text):
            captions: Any = entry["caption"]
            listed = [captions] if isinstance(captions, str) else captions
            by_image.setdefault(_named(entry["image"]), []).extend(map(_named, listed))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainingError(f"{path}: not a list of objects with 'image' and 'caption': {error!r}") from error
    return by_image


def _named(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _of_tokens(path: str, text: str) -> dict[str, list[str]]:
    by_image: dict[str, list[str]] = {}
    for number, line in enumerate(text.rstrip("\n").split("\n"), 1):  # captions may hold other ends of lines
        name, tab, caption = line.partition("\t")
        if not tab or "#" not in name:
            raise TrainingError(f"{path}: line {number} is not FILE#NUMBER, a tab, and a caption: {line[:60]!r}")
        by_image.setdefault(name.rpartition("#")[0], []).append(caption.strip())
    return by_image


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"{path}: {error}") from error


def _folder(path: str, options: Mapping[str, str]) -> Path:
    return Path(options.get("images", str(Path(path).parent)))
