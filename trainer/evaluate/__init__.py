"""Evaluation: a data set is embedded once, then each task measures what was embedded.

settings, embed    what is asked; the features of a data set, from all processes
texts              captions and class names as features
tasks              a task by name: `run` yields (name, value)
regions            boxes against the names of their labels
zeroshot           images against class names, which are their captions
retrieval          images and their captions, both ways
region_retrieval   boxes and their captions, both ways
classify, rank     what the first two and the last two share
metrics            pure functions of similarities
"""
