"""The command line.

options    flags over a recipe, without torch
command    train, evaluate: parse, then hand over
execute    what the commands do
export     a checkpoint for other libraries
"""
