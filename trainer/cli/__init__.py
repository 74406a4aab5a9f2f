"""The command line.

options    flags over a recipe, without torch
command    train, evaluate: parse, then import what they need
export     a checkpoint for other libraries
"""
