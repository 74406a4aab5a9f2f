"""Open-vocabulary segmentation: CAT-Seg (Cho et al., 2024), aggregation of the cost volume of a CLIP.

    image, names -> cost volume -> over the image, over the classes -> decoder -> a mask a name

settings      what a segmenter, its training and its measurement consist of; recipes
label_maps    classes of pixels in files: COCO-Stuff, ADE20K, any PNG
outlines      classes of pixels from masks: regions of a data set, Pascal Context
data          which of both `--data` means; base and novel classes
crops         an image and its labels at the input's size: jittered to train, whole
batches       crops in the order of steps
cost          similarity of each patch to each name
aggregate     the cost volume made smooth: windows of each class's map, classes of each patch
decoder       maps at the patches' size to maps of four times the sides
tuning        which weights of the CLIP are trained
segmenter     all of it: logits of a view
mask_loss     what training lowers
views         windows of an image, and their masks put together
files, run    what lies in a run's folder; a segmenter from it
train         a training from start, or from where it was stopped
miou          the mean intersection over union, by both formulas
evaluate      a segmenter's masks of a data set, measured
probe         the raw cost volume measured, without any training
predict       images with masks drawn, and COCO's JSON of them

It is written from a description of what CAT-Seg computes.
"""
