"""From shards to batches.

index -> sampler -> decode -> batch -> batches -> pixels

index      what there is: arrays from the shards' tables
sampler    which image comes when; a place in an epoch is one integer
decode     one image: its pixels, regions and crops' places (in worker processes)
batch      a batch, ragged and in uint8; batches draws them
pixels     to the model's input, on the device
"""
