"""From shards to batches.

index -> sampler -> decode -> batch -> batches -> pixels          --stream: lanes for sampler, tars and streams

index      what there is: arrays from the shards' tables
sampler    which image comes when; a place in an epoch is one integer
decode     one image: its pixels, regions and crops' places (in worker processes)
batch      a batch, ragged and in uint8; batches draws them
streams    the same batches of tars that are read whole: lanes says which images make a step, tars reads them
pixels     to the model's input, on the device
"""
