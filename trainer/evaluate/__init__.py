"""Evaluation: figures of a model on a data set.

evaluate   the tasks; zeroshot: classes from prompts; metrics: pure functions of features and truth
"""
