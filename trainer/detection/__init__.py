"""Open-vocabulary detection: F-ViT (Wu et al., 2024), a detector on the frozen vision tower of a CLIP.

    image -> FrozenTower -> pyramid -> proposals -> regions -> names

settings      what a detector, its training and its scores consist of; recipes
annotations   a data set's boxes: base ones to train on, all to measure
canvas        an image in a square of the input: jittered to train, fitted to measure
batches       canvases in the order of steps
pyramid       tokens of four blocks to maps of five strides
anchors       boxes of each cell, at strides that need not be whole
boxes         which box is which truth, sampled; how boxes become numbers
proposals     boxes that may hold something
regions       pooled boxes to class features and better boxes
fusion        the detector's probabilities and CLIP's
detector      all of it: losses, detections
files, run    what lies in a run's folder; a detector from it
train         a training from start, or from where it was stopped
precision     AP50 of base, novel and all classes, by pycocotools
evaluate      detections of a data set, measured
probe         true boxes scored with the dense map, without any training
predict       images with boxes drawn, and COCO's JSON of them

It is written from a description of what F-ViT computes, with torchvision's parts where they compute the same.
"""
