"""Sources: what an INPUT may be. A kind is one class here and one line in `SOURCES`.

    spec, location, local_files   how an INPUT is written, where its files are, what a local name leads to
    names            which file a table means by a name, and whether it may be read
    recognise        annotations of other kinds in a folder of pictures: what they are, who reads them
    describe, summary   what an input gives, where from, and what of it is not read
    webdataset       tars (tars, compression, img2dataset, sample_json: their parts)
    folder, coco, yolo, voc   sources that list their samples when planned (listed; coco_images, coco_folder, yolo_yaml,
                     yolo_labels, voc_xml: their parts)
    objects          Hugging Face's `objects`, in a column or a table
    record           what a file of one sample says, whatever its format
    parquet          rows with pictures (parquet_files, picture_cells)
    captions         what counts as a caption, for all of them; caption_tables: those of a folder in a table
    scenes           generated pictures whose truth is known
    formats, decode, mend   which files are pictures, and their pixels
    keys, items, parts   what all of them share: keys and drops, cutting into shards

Every class is built from the rest of its spec, after `kind:`; instances can be pickled.
"""

from collections.abc import Sequence
from typing import cast

from pipeline.backends import load_backend
from pipeline.read.base import Source, SourceError
from pipeline.read.spec import detect_kind, split_options, split_prefix

SOURCES: dict[str, str] = {
    "webdataset": "pipeline.read.webdataset:WebDataset",
    "folder": "pipeline.read.folder:ImageFolder",
    "coco": "pipeline.read.coco:Coco",
    "yolo": "pipeline.read.yolo:Yolo",
    "voc": "pipeline.read.voc:Voc",
    "parquet": "pipeline.read.parquet:Parquet",
    "scenes": "pipeline.read.scenes:Scenes",
}
"""Name of each kind of source and where its class is, "module:Class"."""


_NAMES_FILES = {"folder", "coco", "yolo", "voc", "parquet"}
"""Kinds with tables that name pictures by path."""


def open_source(spec: str, kind: str | None = None, *, allow: Sequence[str] = ()) -> Source:
    """Return the source that `spec`, `[KIND:]PATH[?OPTIONS]`, stands for.

    Without a kind in front the files found decide, which lists a folder: a caller that knows the kind from an earlier
    call (`Source.kind`) passes it. Names in tables may lead to the folders of `allow` too. Raises SourceError, saying
    what was looked for and what to do, for an unknown kind, a missing path, and a place with nothing usable or with
    files of several kinds.
    """
    prefix, rest = split_prefix(spec)
    kind = prefix or kind or detect_kind(split_options(rest)[0])
    if kind not in SOURCES:
        raise SourceError(f"{spec}: unknown kind {kind!r} before the colon; known: {', '.join(sorted(SOURCES))}")
    named = {"allow": allow} if kind in _NAMES_FILES else {}
    return cast(Source, load_backend(SOURCES, "source", kind)(rest, **named))
