"""Writing the shards of one unit of work.

rows -> shard_writer -> shards

rows             a sample as table rows and as the record in the tar
shard_writer     one shard's tar and table, hashed as they are written
shards           all shards of a unit, one a split, committed
proposals_file   the proposals of a unit, kept between two pools
"""
