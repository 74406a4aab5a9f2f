"""Small checkpoints of the real architectures, trained on scenes by the project's own scripts.

    loop       the training loop they share: seed and step decide the data, a stopped run continues exactly
    batches    scenes and their crops as training batches
    heads      what teaches a small vision tower to see shapes
    tokens     the small BPE of captioner and clip
    detector   YOLOv9-t, one class
    captioner  BLIP-2 with an OPT head
    clip       a CLIP of open_clip
    evaluate   figures on fresh scenes; cards: the README of each checkpoint
    ship       trains, measures and lays out one mini (`fineclip train-mini`)
    weights    safetensors in and out; store: where the shipped checkpoints lie

Everything but `batches`, `cards` and `store` needs torch, and is imported only by those who train, measure or
load a mini.
"""
