"""What filters would drop of a data set, before anything is dropped.

    tables, overlays -> measures, a number a filter and row --+-> sweep -> recommend -> report
    images -> perceptual hashes -> near-duplicates -----------+                     -> filter list

filters     which filters there are, what each measures, and where it is reasonable to begin
captions    what a caption's words say of it
copies      how often each caption occurs
boxes       what a box says of itself and of its neighbours
hashes      perceptual hashes of images; near: those that nearly agree
measures    all of it, a table a shard, in OUT
sweep       how much each threshold drops
recommend   which threshold, and why
pictures    crops of what is kept and dropped
report      one HTML page and one JSON
listing     the filter list
census      what a data set is, in numbers, for its card; example: a picture of it
layout      what lies in OUT
audit       the flow

It reads a data set and writes to a folder of its own: shards stay as they are. One shard is in memory at a time,
with 16 bytes for each different caption and the keys and hashes of all images.
"""
