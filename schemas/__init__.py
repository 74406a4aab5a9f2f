"""What `pipeline` and `trainer` share: record, box, hash and reason definitions, and the reader of shards.

    names     how the files of a data set are called
    reasons   why an image or region did not make it
    boxes     box arithmetic; hashes: ids and fingerprints
    text      what counts as text; loose_json: JSON as others write it; coco: COCO's files
    class_sentences  names of classes in sentences
    word_changes  wrong captions out of right ones
    records   the `.json` of a sample and of a shard; tables: the Parquet beside it
    tar       the layout of a shard's tar, for its writer and its reader
    dataset   opens a data set, local or remote, with overlays and filter lists; made of
              folder (bytes), shards (markers), overlays, filters and views (what both change in records)
    flags         the parser of both sides' command lines; needs jsonargparse, as nothing else here does
    plain_flags   the parser of the light commands
    store_errors  what goes wrong with the store of a data set, in sentences
    stores    the file system of a path or URL, and how long a store is waited for; streams: a file in one request
    generate  writes the JSON and Arrow schemas committed here

Imports neither side, and neither Beam nor torch.
"""

DISTRIBUTION = "fineclip-regions"
"""Whose package this is: others on the index have its name, and would lie in its place."""
