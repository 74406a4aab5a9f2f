"""Why an image or a region did not make it: the one committed list.

Every image and every region ends in one of three statuses, and **inputs = ok + filtered + dead** holds for each shard
and overall. `filtered` is a rule of ours doing its work; `dead` is a failure.
"""

from enum import StrEnum


class Status(StrEnum):
    """How an image or a region ended."""

    OK = "ok"
    FILTERED = "filtered"
    DEAD = "dead"


class Stage(StrEnum):
    """The step of the flow at which an image or a region was decided."""

    READ = "read"
    DECODE = "decode"
    PROPOSE = "propose"
    SELECT = "select"
    CROP = "crop"
    CAPTION = "caption"


class Reason(StrEnum):
    """Why an image or a region is not ok; `STATUS_OF` gives the status and `MEANING_OF` a sentence for people."""

    # filtered: our rules
    EXCLUDED = "excluded"
    COMPANION = "companion"
    STALE = "stale"
    NOT_DOWNLOADED = "not_downloaded"
    LOW_RESOLUTION = "low_resolution"
    NO_REGIONS = "no_regions"
    SMALL = "small"
    LOW_SCORE = "low_score"
    OVERLAP = "overlap"
    OVER_LIMIT = "over_limit"
    OUTSIDE = "outside"
    LOW_CONFIDENCE = "low_confidence"
    CROWD = "crowd"
    # dead: failures
    MISSING = "missing"
    NOT_ALLOWED = "not_allowed"
    EMPTY_FILE = "empty_file"
    DECODE = "decode"
    TRUNCATED = "truncated"
    TOO_LARGE = "too_large"
    NO_IMAGE = "no_image"
    SHARED_KEY = "shared_key"
    BAD_RECORD = "bad_record"
    CAPTION_ENCODING = "caption_encoding"
    DUPLICATE_KEY = "duplicate_key"
    INVALID_BOX = "invalid_box"
    SIZE_MISMATCH = "size_mismatch"
    NO_MASK = "no_mask"
    OOM = "oom"
    TIMEOUT = "timeout"
    MODEL_ERROR = "model_error"
    EMPTY_CAPTION = "empty_caption"
    REPEATED_CAPTION = "repeated_caption"
    UNFINISHED = "unfinished"


MEANING_OF: dict[Reason, str] = {
    Reason.EXCLUDED: "a list of --filter takes it away",
    Reason.COMPANION: "another picture of a sample that has one: its name has the same key up to the first dot",
    Reason.STALE: "bytes behind the end of a tar that make no archive: what was deleted from it stays deleted",
    Reason.NOT_DOWNLOADED: "the source has no image here: the program that made it says that its download failed",
    Reason.LOW_RESOLUTION: "the image's shorter side is below --select.min-image-side",
    Reason.NO_REGIONS: "no region was left in the image, and --drop-empty was given",
    Reason.SMALL: "a side of the box is below --select.min-side",
    Reason.LOW_SCORE: "the proposal's score is below --select.min-score",
    Reason.OVERLAP: "a better box of the same image covers this one (IoU above --select.max-iou)",
    Reason.OVER_LIMIT: "more regions than --select.max-regions, or more proposals than --select.max-proposals",
    Reason.OUTSIDE: "no part of the box lies inside the image",
    Reason.LOW_CONFIDENCE: "the captioner's best guess is less probable than its --caption.min-confidence",
    Reason.CROWD: "the source says that the box is of a group, not of one object (COCO's iscrowd)",
    Reason.MISSING: "the file named by the source is not there",
    Reason.NOT_ALLOWED: "the source names an address, which is not fetched, or a file outside of INPUT; "
    "--read.allow DIR takes files from there",
    Reason.EMPTY_FILE: "the image file has no bytes",
    Reason.DECODE: "the bytes are not an image that can be decoded",
    Reason.TRUNCATED: "the image file or the tar ends before its data does, or lacks a part of it",
    Reason.TOO_LARGE: "the image has more pixels than --read.max-pixels, or its file more bytes than --read.max-bytes",
    Reason.NO_IMAGE: "the sample has no image member",
    Reason.SHARED_KEY: "several pictures of a tar have one key: the first dot of a name ends it; rename them",
    Reason.BAD_RECORD: "the source's own annotation of the image or region cannot be used",
    Reason.CAPTION_ENCODING: "the caption is not UTF-8",
    Reason.DUPLICATE_KEY: "an earlier sample of the same shard has the same key",
    Reason.INVALID_BOX: "the box holds NaN or infinity, or its right or bottom edge is not beyond its left or top",
    Reason.SIZE_MISMATCH: "the annotation states another image size than the file has",
    Reason.NO_MASK: "--caption.view alpha wants the region's mask, and it has none that fits the image and its box",
    Reason.OOM: "the model ran out of memory on this item alone",
    Reason.TIMEOUT: "the model or server did not answer in time",
    Reason.MODEL_ERROR: "the model raised an error on this item alone",
    Reason.EMPTY_CAPTION: "the captioner returned no words",
    Reason.REPEATED_CAPTION: "the caption says the same again and again, as a model does that got stuck",
    Reason.UNFINISHED: "the captioner's answer was cut short before its end (--caption.unfinished keep keeps such)",
}

_FILTERED = {
    Reason.EXCLUDED,
    Reason.COMPANION,
    Reason.STALE,
    Reason.NOT_DOWNLOADED,
    Reason.LOW_RESOLUTION,
    Reason.NO_REGIONS,
    Reason.SMALL,
    Reason.LOW_SCORE,
    Reason.OVERLAP,
    Reason.OVER_LIMIT,
    Reason.OUTSIDE,
    Reason.LOW_CONFIDENCE,
    Reason.CROWD,
}
STATUS_OF: dict[Reason, Status] = {reason: Status.FILTERED if reason in _FILTERED else Status.DEAD for reason in Reason}
