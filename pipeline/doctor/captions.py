"""Captions as readers see them, overlays and filter lists applied: missing ones, and texts that come again."""

from collections.abc import Collection, Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.doctor.findings import Findings
from pipeline.doctor.keys import Hashes, hashes_of
from schemas.dataset import Dataset
from schemas.folder import DatasetError
from schemas.names import ShardName
from schemas.reasons import Status
from schemas.text import counted, says_something

_COLUMNS = ("key", "region_id", "status", "caption", "text_hash", "image_caption")
_EMPTY = "caption the region again (`fineclip annotate`, or an overlay), or drop it with a filter list"


class Captions:
    """The captions of all shards: each is looked at once, and 16 bytes a different text are kept."""

    def __init__(self, dataset: Dataset, findings: Findings) -> None:
        self._dataset = dataset
        self._findings = findings
        self._hashes: Hashes = np.zeros(0, np.uint64)
        self._counts: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._shards: list[ShardName] = []
        self._num_images = 0
        self._num_images_without = 0

    def look_at(self, shards: Iterable[ShardName]) -> None:
        """Take in the captions of `shards`, and report empty ones and overlays that do not fit."""
        for shard in shards:
            try:
                rows = self._dataset.regions(_COLUMNS, [shard])
            except DatasetError as error:
                # Tables were read before: what does not fit is an overlay.
                self._findings.error("overlay", str(error), remedy="make the overlay again", shard=shard)
                continue
            self._shards.append(shard)
            is_image = pc.is_null(rows["region_id"])
            images = rows.filter(pc.and_(pc.equal(rows["status"], Status.OK.value), is_image))
            self._num_images += len(images)
            self._num_images_without += images["image_caption"].null_count
            for key in images.filter(_says_nothing(images["image_caption"]))["key"].to_pylist():
                message, remedy = "the image's caption says nothing", "give the image a caption in the input, or none"
                self._findings.warning("empty-caption", message, remedy=remedy, shard=shard, key=key)
            self._look_at_regions(shard, _ok_regions(rows))

    def _look_at_regions(self, shard: ShardName, regions: pa.Table) -> None:
        nothing = _says_nothing(regions["caption"], of_null=True)
        for row in regions.filter(nothing).select(["key", "region_id", "caption"]).to_pylist():
            what = "has no caption" if row["caption"] is None else f"its caption {row['caption']!a} says nothing"
            message = f"region {row['region_id']} is ok, but {what}"
            self._findings.error("empty-caption", message, remedy=_EMPTY, shard=shard, key=row["key"])
        hashes = np.concatenate([self._hashes, hashes_of(_texts(regions))])
        counts = np.concatenate([self._counts, np.ones(len(hashes) - len(self._hashes), np.int64)])
        self._hashes, places = np.unique(hashes, return_inverse=True)
        self._counts = np.bincount(places, weights=counts, minlength=len(self._hashes)).astype(np.int64)

    @property
    def num_regions(self) -> int:
        """Ok regions with a caption."""
        return int(self._counts.sum())

    @property
    def repeated_share(self) -> float:
        """The share of captions, 0 to 1, that say what an earlier one says (by `text_hash`)."""
        return 1 - len(self._hashes) / self.num_regions if self.num_regions else 0.0

    def finish(self, max_repeated: float) -> None:
        """Report what shows over all shards; `max_repeated` is the share of repeated captions that is still well."""
        if self.repeated_share > max_repeated:
            self._report_repeated(max_repeated)
        if self._num_images_without:
            have = "has" if self._num_images == 1 else "have"
            of_all = f"{self._num_images_without:,} of {counted(self._num_images, 'image')}"
            message = f"{of_all} {have} no caption of {'its' if self._num_images == 1 else 'their'} own"
            remedy = "give captions with the INPUT, if the training is to match whole images too"
            self._findings.note("no-image-caption", message, remedy=remedy)

    def _report_repeated(self, max_repeated: float) -> None:
        shares = f"{self.repeated_share:.0%} of {self.num_regions:,} captions repeat an earlier one"
        place = int(np.argmax(self._counts))
        shard, key, caption = self._first_with(self._hashes[place])
        commonest = f"{caption!r} alone stands {self._counts[place]:,} times"
        remedy = (
            "choose a captioner or prompt that says more; equal captions are no negatives of each other, which "
            "`fineclip train` knows and other trainers may not. --max-repeated sets the share that is accepted"
        )
        message = f"{shares} (more than {max_repeated:.0%}); {commonest}"
        self._findings.warning("repeated-captions", message, remedy=remedy, shard=shard, key=key)

    def _first_with(self, wanted: np.uint64) -> tuple[ShardName, str, str]:
        """Return shard, key and caption of the first region whose text has the hash `wanted`."""
        for shard in self._shards:
            rows = self._dataset.regions(_COLUMNS, [shard])
            regions = _ok_regions(rows)
            captioned = regions.filter(pc.is_valid(regions["text_hash"]))
            found = np.flatnonzero(hashes_of(_texts(captioned)) == wanted)
            if len(found):
                return shard, captioned["key"][found[0]].as_py(), captioned["caption"][found[0]].as_py()
        raise LookupError("a text that was counted is in no shard: the data set changed meanwhile")


def _texts(regions: pa.Table) -> Collection[str]:
    hashes: list[str] = regions["text_hash"].drop_null().to_pylist()
    return hashes


def _ok_regions(rows: pa.Table) -> pa.Table:
    return rows.filter(pc.and_(pc.equal(rows["status"], Status.OK.value), pc.is_valid(rows["region_id"])))


def _says_nothing(texts: pa.ChunkedArray, *, of_null: bool = False) -> pa.Array:
    """Return `[texts]` bool: no letter and no digit; `of_null` where there is no text."""
    # What holds one of ASCII is most of all, and found at once.
    plain = pc.fill_null(pc.match_substring_regex(texts, "[A-Za-z0-9]"), False)
    nothing = np.zeros(len(texts), np.bool_)
    for place in np.flatnonzero(~plain.to_numpy()):
        text = texts[place].as_py()
        nothing[place] = of_null if text is None else not says_something(text)
    return pa.array(nothing)
