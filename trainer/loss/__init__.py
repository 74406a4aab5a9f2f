"""Losses: pure functions of features, gathered from all processes and weighed.

gather -> losses -> objective
"""
