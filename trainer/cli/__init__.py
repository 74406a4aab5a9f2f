"""The command line.

options    flags over a recipe, without torch
outputs    what is in the way of what a command writes
command    train, evaluate: parse, then import what they need
export     a checkpoint for other libraries
"""
