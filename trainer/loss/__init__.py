"""Losses: features of all processes to a weighted sum.

gather      rows of features from all processes, with their gradients
losses      pure functions of features
objective   what every method does: gather, weigh, sum
methods     CLIP, CLIPSelf, FineCLIP, RegionCLIP: a class a method
official    the official code's objective, quirks and all
choose      which of them a recipe means
"""
