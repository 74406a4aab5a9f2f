"""Sources: what an INPUT may be. A kind is one class here and one line in `SOURCES`.

    spec, location, local_files   how an INPUT is written, where its files are, what a local name leads to
    names            which file a table means by a name, and whether it may be read
    recognise        annotations of other kinds in a folder of pictures: what they are, who reads them
    describe, summary   what an input gives, where from, and what of it is not read
    webdataset       tars (tars, tar_archives, tar_headers, compression, img2dataset, sample_json: their parts)
    folder, coco, yolo, voc   sources that list their samples when planned (listed; coco_images, coco_folder, yolo_yaml,
                     yolo_labels, voc_xml: their parts)
    annotated        files that name pictures and say what is on them: visual_genome, flickr30k, refcoco, grounding
                     (finder, grounding_text, json_entries: their parts)
    objects          Hugging Face's `objects`, in a column or a table
    record           what a file of one sample says, whatever its format
    parquet, arrow   rows with pictures (parquet_columns, parquet_files, arrow_files, picture_cells, phrases: parts)
    captions         what counts as a caption, for all of them; caption_tables: those of a folder in a table
    scenes           generated pictures whose truth is known
    formats, decode, mend   which files are pictures, and their pixels
    keys, items, parts   what all of them share: keys and drops, cutting into shards

Every class is built from the rest of its spec, after `kind:`; instances can be pickled.
"""

from collections.abc import Sequence
from typing import cast

from pipeline.backends import load_backend
from pipeline.read.base import Source, SourceError, input_errors
from pipeline.read.spec import detect_kind, split_options, split_prefix

SOURCES: dict[str, str] = {
    "webdataset": "pipeline.read.webdataset:WebDataset",
    "folder": "pipeline.read.folder:ImageFolder",
    "coco": "pipeline.read.coco:Coco",
    "yolo": "pipeline.read.yolo:Yolo",
    "voc": "pipeline.read.voc:Voc",
    "visual_genome": "pipeline.read.visual_genome:VisualGenome",
    "flickr30k": "pipeline.read.flickr30k:Flickr30k",
    "refcoco": "pipeline.read.refcoco:RefCoco",
    "grounding": "pipeline.read.grounding:GroundingText",
    "parquet": "pipeline.read.parquet:Parquet",
    "arrow": "pipeline.read.arrow:Arrow",
    "scenes": "pipeline.read.scenes:Scenes",
}
"""Name of each kind of source and where its class is, "module:Class"."""


_NO_NAMES = {"webdataset", "scenes"}
"""Kinds without files that name pictures by path."""


def open_source(spec: str, kind: str | None = None, *, allow: Sequence[str] = ()) -> Source:
    """Return the source that `spec`, `[KIND:]PATH[?OPTIONS]`, stands for.

    Without a kind in front the files found decide, which lists a folder: a caller that knows the kind from an earlier
    call (`Source.kind`) passes it. Names in tables may lead to the folders of `allow` too. Raises SourceError, saying
    what was looked for and what to do, for an unknown kind, a missing path, and a place with nothing usable or with
    files of several kinds.
    """
    prefix, rest = split_prefix(spec)
    with input_errors(spec):
        kind = prefix or kind or detect_kind(split_options(rest)[0])
    if kind not in SOURCES:
        raise SourceError(f"{spec}: unknown kind {kind!r} before the colon; known: {', '.join(sorted(SOURCES))}")
    named = {} if kind in _NO_NAMES else {"allow": allow}
    return cast(Source, load_backend(SOURCES, "source", kind)(rest, **named))
