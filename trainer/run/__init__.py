"""A run: steps in a loop, with checkpoints, a log and held-out evaluation.

train_settings   how a run is carried out
processes        this process among the others, and its device
assemble         from a recipe to the parts of a run; concepts: RegionCLIP's
step             one step in seven parts; texts, grad_cache, optim: three of them
loop             steps until the end; checkpoints, log, held_out, stop
head_training    the same, in one process, of what stands on a CLIP: detectors, segmenters
files, load      a model from whatever names one
"""
