"""The command line.

options    flags over a recipe, without torch
outputs    what is in the way of what a command writes, and how it ended
heads, head_options   what detect and segment share
command    train: parse, then import what it needs
evaluate   measure a model: JSON, Markdown; measure does it
visualize  show what models see
detect     train, measure and use a detector; detect_options
segment    the same for a segmenter; segment_options
export     a checkpoint for other libraries
"""
