"""The trainer: learns from region-text shards. It imports `schemas`, never `pipeline`.

    shards -> data -> model -> loss -> run -> evaluate

    hyperparameters   what a result depends on;  recipes: whole ones, such as the paper's
    cli/              the command line, without torch until it is needed
    data/             shards to batches, batches to the model's input
    model/            the towers and their features; weights in and out
    loss/             features of all processes to a loss: a class a method
    run/              a step in seven parts (run/step.py), a run around it (run/loop.py)
    evaluate/         a file a task
    detection/        an open-vocabulary detector on a frozen tower
    segmentation/     an open-vocabulary segmenter on the cost volume

Each folder's docstring lists its modules in reading order. `errors` has the exit codes, `cores` who may use the CPU.

`fineclip train DATA --recipe NAME --out RUN` runs it; on many devices `torchrun --nproc-per-node N $(which fineclip)
train DATA ...`, or `accelerate launch` in place of `torchrun`.
"""

DISTRIBUTION = "fineclip-regions"
"""Whose package this is: others on the index have its name, and would lie in its place."""
