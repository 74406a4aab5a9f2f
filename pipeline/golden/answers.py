"""Golden answers: before a run every model answers a few pictures, to see that it still says what it said.

A library of another version can load the same weights without an error and caption everything wrongly
(transformers#38858). So the answers are kept twice, by what decides them (weights, settings, kind of hardware): in the
data set, for those who go on with it elsewhere or later, and in this user's cache, for the next data set. Answers that
differ stop the worker before it touches an image; `--allow-new-answers` takes the new ones in place of the old, and a
digest in the provenance tells which shard was made with which.
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
    "new answers are right, --allow-new-answers takes them in place of the old, and the shards' provenance tells them "
    "apart"
)


class GoldenAnswersError(WorkError):
    """A model gives different golden answers than before. Commands exit 2 on it."""


class GoldenBox(msgspec.Struct, frozen=True):
    """A box that a proposer found in a golden picture."""

    box: tuple[float, float, float, float]
    """xyxy pixels of the picture."""
    score: float
    label: str | None

    def __str__(self) -> str:
        edges = ", ".join(f"{edge:.0f}" for edge in self.box)
        return f"[{edges}] {self.label or 'region'} {self.score:.2f}"

    def is_like(self, other: "GoldenBox") -> bool:
        """Return whether the two differ by no more than arithmetic in another order may change."""
        moved = max(abs(a - b) for a, b in zip(self.box, other.box, strict=True))
        return self.label == other.label and moved <= _MAX_PIXELS and abs(self.score - other.score) <= _MAX_SCORE


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

    def versions(self) -> str:
        """Return the libraries for people."""
        return ", ".join(f"{name} {version}" for name, version in sorted(self.libraries.items())) or "none named"

    def differences(self, after: "Answers") -> Iterator[tuple[str, str, str]]:
        """Yield (what, before, after) for every golden picture or crop that `after` answers differently."""
        for key in sorted({*self.captions, *after.captions}):
            old, new = self.captions.get(key, ""), after.captions.get(key, "")
            if old != new:
                yield key, repr(old), repr(new)
        for key in sorted({*self.boxes, *after.boxes}):
            lost, found = _unmatched(self.boxes.get(key, []), after.boxes.get(key, []))
            if lost or found:
                yield key, _listed(lost), _listed(found)


def _unmatched(before: Sequence[GoldenBox], after: Sequence[GoldenBox]) -> tuple[list[GoldenBox], list[GoldenBox]]:
    """Return the boxes of each side that the other side lacks."""
    found = list(after)
    lost = []
    for old in before:
        match = next((new for new in found if old.is_like(new)), None)
        if match is None:
            lost.append(old)
        else:
            found.remove(match)
    return lost, found


def _listed(boxes: Sequence[GoldenBox]) -> str:
    return ", ".join(map(str, boxes[:3])) + (f" and {len(boxes) - 3} more" if len(boxes) > 3 else "") or "nothing"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A model that has answered, and the name under which its answers are kept."""

    model: str
    name: str
    answers: Answers

    def compared(self, before: Answers, *, kept_in: str) -> str | None:
        """Return what differs from the answers known before, for people; None where nothing does."""
        differences = list(before.differences(self.answers))
        if not differences:
            return None
        num_asked = len(self.answers.boxes) or len(self.answers.captions)
        shown = "\n".join(f"  {key}: before {old}, now {new}" for key, old, new in differences[:_SHOWN])
        more = f"\n  and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
        return (
            f"{self.model} gives different golden answers than before ({len(differences)} of {num_asked}) with the "
            f"same weights (kept in {kept_in}):\n{shown}{more}\n"
            f"  libraries before: {before.versions()}; now: {self.answers.versions()}"
        )


@dataclass(frozen=True, kw_only=True)
class KeptAnswers:
    """Where golden answers are kept: the data set and the user's cache."""

    dataset: Storage
    cache: Storage

    @classmethod
    def of(cls, dataset: Storage) -> "KeptAnswers":
        """Return the places for a data set, with the cache of this machine's user (`XDG_CACHE_HOME` moves it)."""
        return cls(dataset=dataset, cache=open_storage(platformdirs.user_cache_dir("fineclip-regions")))

    def check(self, asked: Sequence[Asked], *, allow_new: bool) -> dict[str, Answers]:
        """Compare all answers with those kept, and only then keep what is new; return the standing ones by name.

        The first place that knows a model decides: the data set, then the cache. Raises GoldenAnswersError, with before
        and after, where answers differ; with `allow_new` it warns, and they replace the old ones in that place. Raises
        StorageError for a file in the data set that holds no answers.
        """
        known = {one.name: self._first_known(one.name) for one in asked}
        told = {
            one.name: one.compared(found[1], kept_in=f"{found[0].url}/{one.name}")
            for one in asked
            if (found := known[one.name]) is not None
        }
        changed = {name: message for name, message in told.items() if message is not None}
        if changed and not allow_new:
            raise GoldenAnswersError("\n".join([*changed.values(), _REMEDY]))
        standing = {}
        for one in asked:
            place, before = known[one.name] or (None, one.answers)
            if one.name in changed:
                _log.warning("accepted: %s", changed[one.name])
                before = one.answers
                self.dataset.replace(one.name, msgspec.json.encode(before))
            elif place is not self.dataset and not self.dataset.decide(one.name, msgspec.json.encode(before)):
                return self.check(asked, allow_new=allow_new)  # another worker was first at the same moment
            self._keep_in_cache(one.name, before, replace=one.name in changed and place is self.cache)
            standing[one.name] = before
        return standing

    def _first_known(self, name: str) -> tuple[Storage, Answers] | None:
        """Return the first place that has answers under `name`, with them."""
        for storage in (self.dataset, self.cache):
            answers = self._kept(storage, name)
            if answers is not None:
                return storage, answers
        return None

    def _kept(self, storage: Storage, name: str) -> Answers | None:
        """Return the answers kept under `name`, None where there are none; a damaged file in the cache is none."""
        try:
            return msgspec.json.decode(storage.read(name), type=Answers)
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


def check_models(
    kept: KeptAnswers,
    proposer: Proposer | None,
    captioner: Captioner | None,
    *,
    configuration: Mapping[str, Any],
    device: Device,
    allow_new: bool,
) -> dict[str, str]:
    """Let the models answer the golden set and compare; return a digest of the standing answers, for provenance.

    Models without weights cannot change, and those that run elsewhere are their server's business: neither is asked.
    `configuration` is the planned one, as JSON: what decides the answers, apart from the hardware. Raises
    GoldenAnswersError, and WorkError where a model cannot answer.
    """
    models: dict[str, tuple[Proposer | Captioner, Callable[[], Answers]]] = {}
    if proposer is not None:
        models["proposer"] = proposer, lambda: ask_proposer(proposer)
    if captioner is not None:
        models["captioner"] = captioner, lambda: ask_captioner(captioner)
    asked = {}
    for kind, (model, ask) in models.items():
        libraries = model.provenance().get("libraries", {})
        if "torch" in libraries:
            key = fingerprint({"model": dict(configuration[kind]), "hardware": device.hardware_kind()})
            name = f"{PLAN_DIR}/golden-{key[:16]}.json"
            answers = msgspec.structs.replace(ask(), libraries=libraries)
            asked[kind] = Asked(model=model.name, name=name, answers=answers)
    standing = kept.check(list(asked.values()), allow_new=allow_new)
    return {kind: standing[one.name].digest() for kind, one in asked.items()}


def ask_proposer(proposer: Proposer) -> Answers:
    """Return the best boxes of each golden picture, none of a filtered one. Raises WorkError where one is dead."""
    batcher: Batcher[DecodedImage, Proposals] = Batcher(
        proposer.propose, name=proposer.name, stage=Stage.PROPOSE, batch_size=proposer.batch_size
    )
    boxes: dict[str, list[GoldenBox]] = {}
    for image, outcome in batcher.run(golden_images()):
        if isinstance(outcome, Drop):
            if STATUS_OF[outcome.reason] is Status.DEAD:
                raise WorkError(f"{proposer.name} cannot answer the golden set: {outcome.message}")
            boxes[image.key] = []
            continue
        rows = zip(outcome.boxes.tolist(), outcome.scores.tolist(), outcome.labels, strict=True)
        found = [GoldenBox(tuple(round(edge, 1) for edge in box), round(score, 3), label) for box, score, label in rows]
        boxes[image.key] = sorted(found, key=lambda one: (-one.score, one.box))[:_MAX_BOXES]
    return Answers(boxes=boxes)


def ask_captioner(captioner: Captioner) -> Answers:
    """Return the caption of each golden crop, or why it is filtered. Raises WorkError where a crop is dead."""

    def call(crops: Sequence[Crop]) -> Sequence[Caption | Drop]:
        return captioner.caption(crops, [captioner.prompt] * len(crops))

    batcher: Batcher[Crop, Caption] = Batcher(
        call, name=captioner.name, stage=Stage.CAPTION, batch_size=captioner.batch_size
    )
    captions = {}
    for crop, outcome in batcher.run(golden_crops()):
        if not isinstance(outcome, Drop):
            captions[crop.region_id] = " ".join(outcome.text.split())
        elif STATUS_OF[outcome.reason] is Status.DEAD:
            raise WorkError(f"{captioner.name} cannot answer the golden set: {outcome.message}")
        else:
            captions[crop.region_id] = f"filtered: {outcome.reason.value}"
    return Answers(captions=captions)
