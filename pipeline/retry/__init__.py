"""Repeating what died in shards that exist: their items from their sources, all else as it is.

    shard as it is ---------------------------.
    source -> the items that are repeated      > a repaired shard, under the same name
           -> read -> propose -> select -> caption

where     which dead rows are meant: COLUMN=VALUE
recorded  the configuration that OUTPUT was made with, from its plan
stored    the shards of a unit as they are, and which of their items are repeated
merge     what is kept and what was repeated, in the order of the source, as a repaired shard
carry     overlays of a repaired shard, for the regions that have not changed

The flow itself is `Annotator.repeat`; the job is `pipeline/run/retry.py`, and how a repair is committed
`pipeline/store/commit.py`.
"""
