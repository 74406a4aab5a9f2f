"""Columns beside the shards of a data set: new captions on the same boxes, corrections by hand.

    shards of DATA -> regions as they are -> caption step -> an overlay         recaption, one shard
    shards of DATA -> crops, captions -> a CLIP -> scores or features           score-regions, embed, one shard
    shards of DATA + overlays -> shards of their own                            materialize, one shard

plan         which tables an overlay is made from, and by which configuration
write        an overlay's files of one shard, committed as a shard is
markers      which shards an overlay has
recaption    one shard: read, caption, write
materialize  one shard: data and overlays as a shard of their own; output: the plan of the data set that these make
drop_list    a list of images to take out; drop: which images of a data set it means
hard_negatives  wrong captions of regions, by rule
encoder      a CLIP by name; encoded: a shard's regions and captions as it sees them
margins      scores of these, against rivals; rivals: the sample of captions that all are compared with
clip_columns  scores or features as an overlay's part of a shard

Readers join overlays to tables by `schemas/overlays.py`.
"""
