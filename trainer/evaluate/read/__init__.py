"""From data to truth: `open_truth("coco:FILE.json?images=DIR")`.

source      KIND:PATH?option=value, and who reads it
collect     what is found, in the order of images; images in files
shards      our own data sets
coco        COCO's JSON: instances, panoptic, captions; LVIS
captions    Karpathy's splits, lists of captions, Flickr30k's tokens
fgovd       FG-OVD: right and wrong captions of boxes, in its own format or FG-CLIP's
wrong       wrong captions made from right ones
"""
