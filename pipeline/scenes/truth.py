"""`fineclip truth DATA`: the true captions of a data set of scenes, as an overlay, and the words that they are made of.

With `--swap SHARE` that share of the regions has another region's caption, to try out what finds wrong captions: these
rows name the captioner `swapped`.

The overlay has a row for each ok region: the caption of the object that it matches at IoU 0.5, or, where there is none,
`filtered: excluded`. Beside its plan lies `words.json`, which `fineclip evaluate --task words --words FILE` reads.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from rich.console import Console

from pipeline.cli.counts import print_counts
from pipeline.overlay.markers import OverlayMarkers
from pipeline.overlay.plan import OverlaidShards, plan_overlay
from pipeline.overlay.write import commit_overlay
from pipeline.scenes.layout import VERSION
from pipeline.scenes.score import scene_of_key
from pipeline.scenes.scoring import match
from pipeline.scenes.words import CHOICES
from pipeline.store.storage import open_storage, storage_errors
from schemas.boxes import as_boxes
from schemas.dataset import Dataset
from schemas.hashes import key_fraction, text_hash, text_sha256
from schemas.names import OVERLAYS_DIR, ShardName
from schemas.overlays import CAPTION_COLUMNS, JOIN_COLUMNS, OUTCOME_COLUMNS
from schemas.reasons import Reason, Stage, Status
from schemas.records import Counts
from schemas.tables import REGION_SCHEMA

TRUTH = "truth"
SWAPPED = "swapped"
"""Captioner of the rows with another region's caption."""
WORDS_FILE = "words.json"
SENTENCES = ("a {size} {colour} {shape}", "a {size} {colour} {texture} {shape}")
"""How captions of images and of regions name an object."""
_COLUMNS = (*JOIN_COLUMNS, *CAPTION_COLUMNS, *OUTCOME_COLUMNS)
_TEXT = ("caption", "text_hash", "text_sha256")
_SCHEMA = pa.schema([REGION_SCHEMA.field(name) for name in _COLUMNS])
_DESCRIPTION = """\
Write the true captions of a data set made from scenes:N as the overlay `truth`, which train and evaluate take by
--overlay truth. Shards that have it are passed over. With --swap, a share of the captions is wrong on purpose: for
trying out what finds wrong captions."""


@dataclass(frozen=True, kw_only=True)
class Swap:
    """Which captions are wrong on purpose."""

    share: float
    """Of the regions, 0 to 1."""
    seed: int

    def as_json(self) -> dict[str, Any]:
        """Return what the overlay's fingerprint holds."""
        return {"swap": self.share, "seed": self.seed}


def write_truth(url: str, overlay: str = TRUTH, swap: Swap | None = None) -> OverlayMarkers:
    """Write the overlay of the data set at `url`, where it is missing, and return its markers.

    Raises DatasetError where a key names no scene, PlanError where another tool made an overlay of that name.
    """
    storage, dataset = open_storage(url), Dataset.open(url)
    with storage_errors(storage.url):
        configuration: dict[str, Any] = {"scenes": VERSION} | ({} if swap is None else swap.as_json())
        plan = plan_overlay(storage, overlay, dataset.markers, tool=TRUTH, configuration=configuration)
        done = OverlayMarkers(storage, overlay, plan.bases).refresh()
        for base in plan.bases:
            if base.shard not in done:
                rows = _rows(dataset, base.shard)
                if swap is not None:
                    swap_captions(rows, swap)
                counts = Counts(inputs=len(rows))
                for row in rows:
                    if row["reason"] is None:
                        counts.ok += 1
                    else:
                        counts.drop(Reason(row["reason"]))
                commit_overlay(
                    storage,
                    base,
                    overlay,
                    pa.Table.from_pylist(rows, schema=_SCHEMA),
                    fingerprint=plan.fingerprint,
                    provenance={"captioner": {"name": TRUTH, **configuration}},
                    regions=counts,
                )
        _write_words(plan)
        return done.refresh()


def _rows(dataset: Dataset, shard: ShardName) -> list[dict[str, Any]]:
    """Return the overlay's rows of a shard: one a region of its records."""
    rows = []
    for sample in dataset.samples(shard):
        scene, regions = scene_of_key(sample.key), sample.record.regions
        captions = {
            found: scene.captions[true] for true, found in match(scene.boxes, as_boxes([r.box for r in regions]))
        }
        for number, region in enumerate(regions):
            row: dict[str, Any] = dict.fromkeys(_COLUMNS) | {"key": sample.key, "region_id": region.id}
            if (caption := captions.get(number)) is None:
                why = {"reason": Reason.EXCLUDED.value, "message": "the box shows no object"}
                rows.append(row | why | {"status": Status.FILTERED.value, "stage": Stage.CAPTION.value})
            else:
                hashes = {"text_hash": text_hash(caption), "text_sha256": text_sha256(caption)}
                rows.append(row | {"status": Status.OK.value, "captioner": TRUTH, "caption": caption} | hashes)
    return rows


def swap_captions(rows: Sequence[dict[str, Any]], swap: Swap) -> None:
    """Give a share of the ok rows, chosen by hash, the caption of another of them that says something else, in place.

    The captions go round among the chosen, so that what is said is said as often as before.
    """
    ok = [row for row in rows if row["status"] == Status.OK.value]
    salt = f"swap {swap.seed}"
    fractions = {id(row): key_fraction(f"{row['key']}/{row['region_id']}", salt) for row in ok}
    chosen = sorted((row for row in ok if fractions[id(row)] < swap.share), key=lambda row: fractions[id(row)])
    captions = [{name: row[name] for name in _TEXT} for row in chosen]
    for place, row in enumerate(chosen):
        others = (captions[(place + step) % len(chosen)] for step in range(1, len(chosen)))
        other = next((one for one in others if one["text_hash"] != captions[place]["text_hash"]), None)
        if other is not None:
            row.update(other, captioner=SWAPPED)


def _write_words(plan: OverlaidShards) -> None:
    words = {"sentences": SENTENCES, "words": CHOICES, "pairs": [["colour", "shape"], ["size", "shape"]]}
    plan.storage.replace(f"{OVERLAYS_DIR}/{plan.overlay}/{WORDS_FILE}", (json.dumps(words, indent=2) + "\n").encode())


def main(arguments: Sequence[str]) -> int:
    """Run `fineclip truth DATA` and return its exit code. Raises errors that carry theirs."""
    parser = argparse.ArgumentParser(prog="fineclip truth", description=_DESCRIPTION, allow_abbrev=False)
    parser.add_argument("data", metavar="DATA", help="a data set made from scenes:N: a folder, or a URL")
    parser.add_argument(
        "--swap", type=float, metavar="SHARE", help="share of the regions, 0 to 1, that get another region's caption"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of --swap (default: 0)")
    parser.add_argument(
        "--as", dest="overlay", metavar="NAME", help="name of the overlay (default: truth, or swapped with --swap)"
    )
    options = parser.parse_args(arguments)
    if options.swap is not None and not 0 <= options.swap <= 1:
        parser.error(f"--swap {options.swap}: a share of the regions, from 0 to 1")
    swap = None if options.swap is None else Swap(share=options.swap, seed=options.seed)
    overlay = options.overlay or (TRUTH if swap is None else SWAPPED)
    totals = write_truth(options.data, overlay, swap).totals
    console = Console(emoji=False)
    print_counts(console, totals)
    console.print(f"Overlay {overlay} of {options.data}: readers take it by --overlay {overlay}.", soft_wrap=True)
    return 0
