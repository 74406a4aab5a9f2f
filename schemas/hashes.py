"""The hashes that name things: regions, texts, files and configurations. All are sha256, some shortened."""

import hashlib
import json
import unicodedata
from typing import Any

import numpy as np

from schemas.boxes import Boxes

_SHORT = 16
"""Hex digits kept of ids and duplicate hashes: 64 bits, a collision among 10 M regions is a 3e-6 chance."""


def sha256(data: bytes) -> str:
    """Return the 64 hex digits of the sha256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def region_id(key: str, box: Boxes, proposer: str, ordinal: int) -> str:
    """Return the 16 hex digits that name a region.

    `box` is `[4]` float32 xyxy in the stored image's frame, quantised (`boxes.quantise`); `ordinal` counts the regions
    of the image that share key, box and proposer, from 0. A box of NaN has an id too: it is named by its bytes.
    """
    corners = (np.asarray(box, "<f4") + np.float32(0)).astype("<f4")  # adding makes -0.0 and 0.0 one number
    return sha256(f"{key}\n{proposer}\n{ordinal}\n".encode() + corners.tobytes())[:_SHORT]


def normalise_text(text: str) -> str:
    """Return `text` as duplicates are judged: NFKC, case folded, punctuation dropped, white space collapsed.

    Normalising twice changes nothing, for which NFKC is needed again after folding.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    kept = "".join(" " if unicodedata.category(c)[0] in "PZC" else c for c in folded)
    return " ".join(kept.split())


def text_hash(text: str) -> str:
    """Return the 16 hex digits shared by all texts equal after `normalise_text` (finds duplicate captions)."""
    return sha256(normalise_text(text).encode("utf-8", "surrogatepass"))[:_SHORT]


def text_sha256(text: str) -> str:
    """Return the sha256 of the exact text, for caches of what a model computed from it."""
    return sha256(text.encode("utf-8", "surrogatepass"))


def canonical_json(value: Any) -> bytes:
    """Return `value` as JSON with sorted keys, no spaces and UTF-8: equal values give equal bytes.

    Raises ValueError for NaN and infinity, which JSON cannot say.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def fingerprint(configuration: Any) -> str:
    """Return the sha256 of the canonical JSON of a configuration: equal configurations, equal fingerprints."""
    return sha256(canonical_json(configuration))


def key_fraction(key: str, salt: str) -> float:
    """Return a number in [0, 1) that depends on `key` and `salt` alone: how keys are sampled and split."""
    return int(sha256(f"{salt}\n{key}".encode())[:13], 16) / 16**13
