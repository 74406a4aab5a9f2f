"""What all models share: weights, devices, batches, licences, and the small checkpoints that ship.

weights    where a model's files are, by hash or commit
state_dict loaded strictly into a model
device     CPU or CUDA, leased; threads
batches    batches over many images, halved on out-of-memory, bisected on errors
licenses   the terms of code and weights
shipped    where the minis that ship lie (`checkpoints/`)
"""
