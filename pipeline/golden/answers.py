"""Golden answers: before a run every model answers a few pictures, to see that it still says what it said.

A library of another version can load the same weights without an error and caption everything wrongly
(transformers#38858). So the answers are kept twice, by what decides them (weights, settings, kind of hardware): in the
data set, for those who go on with it elsewhere or later, and in this user's cache, for the next data set. Answers that
differ stop the worker before it touches an image; `--allow-drift` takes the new ones in place of the old, and a digest
in the provenance tells which shard was made with which.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import platformdirs

from pipeline.caption.base import Captioner
from pipeline.errors import WorkError
from pipeline.golden.pictures import golden_crops, golden_images
from pipeline.models.batches import Batcher
from pipeline.models.device import Device
from pipeline.propose.base import Proposer
from pipeline.sample import Caption, Crop, DecodedImage, Drop, Proposals
from pipeline.store.storage import Storage, StorageError, open_storage
from schemas.hashes import fingerprint
from schemas.names import PLAN_DIR
from schemas.reasons import STATUS_OF, Stage, Status

_log = logging.getLogger(__name__)

_MAX_PIXELS, _MAX_SCORE = 1.0, 0.02
"""By how much a box's edges, in pixels, and its score may move: what arithmetic in another order may change."""
_MAX_BOXES = 20
"""The best boxes of a picture that are compared."""
_SHOWN = 5
_REMEDY = (
    "Go back to the libraries of before; where these are the same, a driver, the machine or a file has changed. If the "
    "new answers are right, --allow-drift takes them in place of the old, and the shards' provenance tells them apart"
)


class DriftError(WorkError):
    """A model answers the golden set otherwise than before. Commands exit 2 on it."""


class GoldenBox(msgspec.Struct, frozen=True):
    """A box that a proposer found in a golden picture."""

    box: tuple[float, float, float, float]
    """xyxy pixels of the picture."""
    score: float
    label: str | None

    def __str__(self) -> str:
        edges = ", ".join(f"{edge:.0f}" for edge in self.box)
        return f"[{edges}] {self.label or 'region'} {self.score:.2f}"


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """What a model said of the golden set, and with what libraries."""

    boxes: dict[str, list[GoldenBox]] = {}
    """Of a proposer, by picture."""
    captions: dict[str, str] = {}
    """Of a captioner, by crop."""
    libraries: dict[str, str] = {}

    def digest(self) -> str:
        """Return 16 hex digits of the answers alone, for the provenance."""
        return fingerprint(msgspec.to_builtins(msgspec.structs.replace(self, libraries={})))[:16]


_decode_answers = msgspec.json.Decoder(Answers).decode


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A model that has answered, and the name under which its answers are kept."""

    model: str
    name: str
    answers: Answers


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """Where answers are kept: the data set and the user's cache."""

    dataset: Storage
    cache: Storage

    @classmethod
    def of(cls, dataset: Storage) -> "Ledger":
        """Return the ledger of a data set, with the cache of this machine's user (`XDG_CACHE_HOME` moves it)."""
        return cls(dataset=dataset, cache=open_storage(platformdirs.user_cache_dir("fineclip-regions")))

    def check(self, asked: Sequence[Asked], *, allow_drift: bool) -> dict[str, Answers]:
        """Compare all answers with those kept, and only then keep what is new; return the standing ones by name.

        The first place that knows a model decides: the data set, then the cache. Raises DriftError, with before and
        after, where answers differ; with `allow_drift` it warns, and they replace the old ones in that place. Raises
        StorageError for a file in the data set that holds no answers.
        """
        known = {one.name: self._known(one.name) for one in asked}
        drifts = {one.name: message for one in asked if (message := _drift(one, known[one.name]))}
        if drifts and not allow_drift:
            raise DriftError("\n".join([*drifts.values(), _REMEDY]))
        standing = {}
        for one in asked:
            place, before = known[one.name] or (None, one.answers)
            if one.name in drifts:
                _log.warning("accepted: %s", drifts[one.name])
                before = one.answers
                self.dataset.replace(one.name, msgspec.json.encode(before))
            elif place is not self.dataset and not self.dataset.decide(one.name, msgspec.json.encode(before)):
                return self.check(asked, allow_drift=allow_drift)  # another worker was first at the same moment
            self._keep_in_cache(one.name, before, replace=one.name in drifts and place is self.cache)
            standing[one.name] = before
        return standing

    def _known(self, name: str) -> tuple[Storage, Answers] | None:
        """Return the first place that has answers under `name`, with them."""
        for storage in (self.dataset, self.cache):
            answers = self._kept(storage, name)
            if answers is not None:
                return storage, answers
        return None

    def _kept(self, storage: Storage, name: str) -> Answers | None:
        """Return the answers kept under `name`, None where there are none; a damaged file in the cache is none."""
        try:
            return _decode_answers(storage.read(name))
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            if storage is self.dataset:
                raise StorageError(f"{storage.url}/{name} holds no golden answers ({error}); remove it") from error
            _log.warning("%s/%s: golden answers that cannot be read: %s", storage.url, name, error)
            return None

    def _keep_in_cache(self, name: str, answers: Answers, *, replace: bool) -> None:
        try:
            if replace or self._kept(self.cache, name) is None:
                self.cache.replace(name, msgspec.json.encode(answers))
        except OSError as error:
            _log.warning("%s: cannot keep golden answers for later data sets: %s", self.cache.url, error)


def _drift(asked: Asked, known: tuple[Storage, Answers] | None) -> str | None:
    """Return what differs from the answers known before, for people; None where nothing does."""
    if known is None:
        return None
    storage, before = known
    differences = list(_differences(before, asked.answers))
    return _message(asked, differences, before, kept_in=f"{storage.url}/{asked.name}") if differences else None


def check_models(
    ledger: Ledger,
    proposer: Proposer | None,
    captioner: Captioner | None,
    *,
    configuration: Mapping[str, Any],
    device: Device,
    allow_drift: bool,
) -> dict[str, str]:
    """Let the models answer the golden set and compare; return a digest of the standing ones, for provenance.

    Models without weights have nothing that could drift, and those that run elsewhere are their server's business:
    neither is asked. `configuration` is the planned one, as JSON: what decides the answers, apart from the hardware.
    Raises DriftError, and WorkError where a model cannot answer.
    """
    asked = {}
    for kind, model, ask in _models(proposer, captioner):
        libraries = model.provenance().get("libraries", {})
        if "torch" in libraries:
            answers = msgspec.structs.replace(ask(), libraries=libraries)
            asked[kind] = Asked(model=model.name, name=_file_name(configuration[kind], device), answers=answers)
    standing = ledger.check(list(asked.values()), allow_drift=allow_drift)
    return {kind: standing[one.name].digest() for kind, one in asked.items()}


def _models(
    proposer: Proposer | None, captioner: Captioner | None
) -> Iterator[tuple[str, Proposer | Captioner, Callable[[], Answers]]]:
    """Yield the models that there are, with how to ask them."""
    if proposer is not None:
        yield "proposer", proposer, lambda: _propose(proposer)
    if captioner is not None:
        yield "captioner", captioner, lambda: _caption(captioner)


def _file_name(model: Mapping[str, Any], device: Device) -> str:
    key = fingerprint({"model": dict(model), "hardware": device.hardware_kind()})
    return f"{PLAN_DIR}/canary-{key[:16]}.json"


def _propose(proposer: Proposer) -> Answers:
    batcher: Batcher[DecodedImage, Proposals] = Batcher(
        proposer.propose, name=proposer.name, stage=Stage.PROPOSE, batch_size=proposer.batch_size
    )
    boxes = {image.key: _best(proposer.name, outcome) for image, outcome in batcher.run(golden_images())}
    return Answers(boxes=boxes)


def _best(model: str, outcome: Proposals | Drop) -> list[GoldenBox]:
    if isinstance(outcome, Drop):
        raise WorkError(f"{model} cannot answer the golden set: {outcome.message}")
    rows = zip(outcome.boxes.tolist(), outcome.scores.tolist(), outcome.labels, strict=True)
    found = [GoldenBox(tuple(round(edge, 1) for edge in box), round(score, 3), label) for box, score, label in rows]
    return sorted(found, key=lambda one: (-one.score, one.box))[:_MAX_BOXES]


def _caption(captioner: Captioner) -> Answers:
    def call(crops: Sequence[Crop]) -> Sequence[Caption | Drop]:
        return captioner.caption(crops, [captioner.prompt] * len(crops))

    batcher: Batcher[Crop, Caption] = Batcher(
        call, name=captioner.name, stage=Stage.CAPTION, batch_size=captioner.batch_size
    )
    outcomes = batcher.run(golden_crops())
    return Answers(captions={crop.region_id: _text(captioner.name, outcome) for crop, outcome in outcomes})


def _text(model: str, outcome: Caption | Drop) -> str:
    if not isinstance(outcome, Drop):
        return " ".join(outcome.text.split())
    if STATUS_OF[outcome.reason] is Status.DEAD:
        raise WorkError(f"{model} cannot answer the golden set: {outcome.message}")
    return f"filtered: {outcome.reason.value}"


def _differences(before: Answers, after: Answers) -> Iterator[tuple[str, str, str]]:
    """Yield (what, before, after) for every golden picture or crop that is answered otherwise."""
    for key in sorted({*before.captions, *after.captions}):
        old, new = before.captions.get(key, ""), after.captions.get(key, "")
        if old != new:
            yield key, repr(old), repr(new)
    for key in sorted({*before.boxes, *after.boxes}):
        lost, found = _unmatched(before.boxes.get(key, []), after.boxes.get(key, []))
        if lost or found:
            yield key, _listed(lost), _listed(found)


def _unmatched(before: Sequence[GoldenBox], after: Sequence[GoldenBox]) -> tuple[list[GoldenBox], list[GoldenBox]]:
    """Return the boxes of each side that the other side lacks."""
    found = list(after)
    lost = []
    for old in before:
        match = next((new for new in found if _alike(old, new)), None)
        if match is None:
            lost.append(old)
        else:
            found.remove(match)
    return lost, found


def _alike(old: GoldenBox, new: GoldenBox) -> bool:
    moved = max(abs(a - b) for a, b in zip(old.box, new.box, strict=True))
    return old.label == new.label and moved <= _MAX_PIXELS and abs(old.score - new.score) <= _MAX_SCORE


def _listed(boxes: Sequence[GoldenBox]) -> str:
    return ", ".join(map(str, boxes[:3])) + (f" and {len(boxes) - 3} more" if len(boxes) > 3 else "") or "nothing"


def _message(asked: Asked, differences: Sequence[tuple[str, str, str]], before: Answers, *, kept_in: str) -> str:
    num_asked = len(asked.answers.boxes) or len(asked.answers.captions)
    shown = "\n".join(f"  {key}: before {old}, now {new}" for key, old, new in differences[:_SHOWN])
    more = f"\n  and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
    return (
        f"{asked.model} answers {len(differences)} of {num_asked} golden questions otherwise than it did with the same "
        f"weights (kept in {kept_in}):\n{shown}{more}\n"
        f"  libraries before: {_versions(before)}; now: {_versions(asked.answers)}"
    )


def _versions(answers: Answers) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(answers.libraries.items())) or "none named"
