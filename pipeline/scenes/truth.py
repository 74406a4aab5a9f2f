"""`fineclip truth DATA`: the true captions of a data set of scenes, as an overlay, and the words that they are made of.

The overlay has a row for each ok region: the caption of the object that it matches at IoU 0.5, or, where there is none,
`filtered: excluded`. Beside its plan lies `words.json`, which `fineclip evaluate --task words --words FILE` reads.
"""

import argparse
import json
from collections.abc import Sequence
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
from schemas.hashes import text_hash, text_sha256
from schemas.names import OVERLAYS_DIR, ShardName
from schemas.overlays import CAPTION_COLUMNS, JOIN_COLUMNS, OUTCOME_COLUMNS
from schemas.reasons import Reason, Stage, Status
from schemas.records import Counts
from schemas.tables import REGION_SCHEMA

TRUTH = "truth"
WORDS_FILE = "words.json"
SENTENCES = ("a {size} {colour} {shape}", "a {size} {colour} {texture} {shape}")
"""How captions of images and of regions name an object."""
_COLUMNS = (*JOIN_COLUMNS, *CAPTION_COLUMNS, *OUTCOME_COLUMNS)
_SCHEMA = pa.schema([REGION_SCHEMA.field(name) for name in _COLUMNS])
_DESCRIPTION = """\
Write the true captions of a data set made from scenes:N as the overlay `truth`, which train and evaluate take by
--overlay truth. Shards that have it are passed over."""


def write_truth(url: str) -> OverlayMarkers:
    """Write the overlay of the data set at `url`, where it is missing, and return its markers.

    Raises DatasetError where a key names no scene, PlanError where another tool made an overlay of that name.
    """
    storage, dataset = open_storage(url), Dataset.open(url)
    with storage_errors(storage.url):
        configuration = {"scenes": VERSION}
        plan = plan_overlay(storage, TRUTH, dataset.markers, tool=TRUTH, configuration=configuration)
        done = OverlayMarkers(storage, TRUTH, plan.bases).refresh()
        for base in plan.bases:
            if base.shard not in done:
                rows = _rows(dataset, base.shard)
                counts = Counts(inputs=len(rows))
                for row in rows:
                    if row["reason"] is None:
                        counts.ok += 1
                    else:
                        counts.drop(Reason(row["reason"]))
                commit_overlay(
                    storage,
                    base,
                    TRUTH,
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


def _write_words(plan: OverlaidShards) -> None:
    words = {"sentences": SENTENCES, "words": CHOICES, "pairs": [["colour", "shape"], ["size", "shape"]]}
    plan.storage.replace(f"{OVERLAYS_DIR}/{TRUTH}/{WORDS_FILE}", (json.dumps(words, indent=2) + "\n").encode())


def main(arguments: Sequence[str]) -> int:
    """Run `fineclip truth DATA` and return its exit code. Raises errors that carry theirs."""
    parser = argparse.ArgumentParser(prog="fineclip truth", description=_DESCRIPTION, allow_abbrev=False)
    parser.add_argument("data", metavar="DATA", help="a data set made from scenes:N: a folder, or a URL")
    options = parser.parse_args(arguments)
    totals = write_truth(options.data).totals
    console = Console(emoji=False)
    print_counts(console, totals)
    console.print(f"Overlay {TRUTH} of {options.data}: readers take it by --overlay {TRUTH}.", soft_wrap=True)
    return 0
