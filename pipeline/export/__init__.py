"""A data set in the formats that other tools read.

    DATA -> survey -> a part for each shard -> join -> OUT

    export      the flow: the plan of OUT, the parts that are missing, the join
    survey      what must be known of all shards before the first part: labels, first ids
    part        the files of one shard, counts of what was left out, the marker that ends it
    join        one JSON file of many parts
    formats     the formats by name, one file each:
                official  coco  yolo  crops  hf  grounding
                (class_embeddings, nouns: what official writes for RegionCLIP)

A format writes what `schemas.Dataset` shows, overlays and filter lists included. Parts know nothing of each other, and
equal data give equal bytes: whoever kills the command and starts it again gets the files that it would have made.
"""
