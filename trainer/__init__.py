"""The trainer: learns from region-text shards. It imports `schemas`, never `pipeline`.

    shards -> decode -> batch -> losses -> step -> eval

    index.py       what there is: arrays from the shards' tables
    sampler.py     which image comes when; a place in an epoch is one integer
    decode.py      one image: its pixels, regions and crops' places          (in worker processes)
    batch.py       a batch, ragged and in uint8;  data.py draws them
    pixels.py      to the model's input                                      (on the device, from here on)
    towers.py      vision towers taken apart;  backbone.py: one pass gives global and dense features
    student.py     all features of a batch, and the teachers
    text.py        captions: from the cache (text_cache.py) or trained
    gather.py      features of all processes, with gradient
    losses.py      pure functions of features;  objective.py joins and weighs them
    step.py        one step, in pieces if need be (GradCache);  optim.py
    run.py         how a run is carried out;  held_out.py: evaluation while training
    loop.py        a run: checkpoints.py, metrics_log.py, evaluate.py with metrics.py, exports.py
    settings.py    what a run depends on;  recipes.py: whole ones;  assemble.py builds what they say
    options.py and command.py: the command line, without torch;  execute.py: what it does
    models.py      open_clip's models and files;  eva_weights.py: the original EVA-CLIP layout;  load.py

`fineclip train DATA --recipe NAME --out RUN` runs it, or `accelerate launch -m trainer train DATA ...` on many devices.
"""
