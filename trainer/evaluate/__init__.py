"""Evaluation: data become truth, truth is embedded once, then each task measures what was embedded.

settings           what is asked
truth, masks       what is known of a data set: images, captions, regions, masks, wrong captions
read/              data sets and benchmarks to truth
pixels, batches    images upright, in order; masks as shares of patches
towers, embed      the features of a truth, from all processes
templates, texts   captions and class names as features
tasks              a task by name: `run` yields (name, value), its `measure` is pure
regions            boxes and masks against the names of classes
words, vocabulary  boxes against the words that captions are made of
attributes         boxes, the right caption among wrong ones
retrieval          images and their captions, both ways
region_retrieval   boxes and their captions, both ways
zeroshot           images against class names, which are their captions
class_split        base classes and novel ones, which detectors and segmenters are not trained on
classes, rank      what tasks share: classes; retrieval both ways
metrics            pure functions of similarities
clusters, figure   k-means of patches; panels with titles; visualize puts the two together
class_figures      means and figures by class, as detectors and segmenters are measured
annotated          boxes and masks drawn on an image
predictions        what was found in a folder of images: pictures, and COCO's JSON
intervals, report  bootstrap intervals; JSON, Markdown, and what each row scored
"""
