"""Studies: a table of trainings that differ in one thing, made cell by cell, each by ordinary commands.

cell         a study's cells, their steps, the columns of its table
grounds      what a study stands on: the scenes benchmark, or a data set
studies      the studies by name: functions from a ground to cells
run          what is missing, a process a command; what is finished is kept
scores       what an evaluation found image by image
statistics   intervals over held-out images, paired
report, plot the table, the picture
subset       a share of a data set by hash of key, for the study of scale
command      `fineclip study`
"""
