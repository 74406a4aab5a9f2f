"""`fineclip doctor`: is a data set whole, and will it train?

    inventory    what lies there: markers, dataset.json, the plan, what a job left behind
    shard        one shard from end to end: files against the marker, then
      members      the tar's layout
      rows         the table's own sense
      samples      records, images, and the table against the tar
    overlays     the overlays and filter lists asked for, and the data set as they leave it
    keys, captions    what shows only over all shards
    loading      shards against ranks x workers
    examine      all of these, in threads
    absent       apart from these: whether images that were taken out are in any file
    findings, report, command    what was found, told to people and to programs

Nothing is written, and nothing is repaired: each finding says what to do. Memory holds a shard's ok rows and one sample
a thread, and 8 bytes per image and 16 per caption over all shards.
"""
