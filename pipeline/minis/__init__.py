"""Small checkpoints of the real architectures, trained on scenes by the project's own scripts.

    loop       the training loop they share: seed and step decide the data, a stopped run continues exactly
    batches    scenes and their crops as training batches
    heads      what teaches a small vision tower to see shapes
    tokens     the small BPE of captioner and clip
    detector   D-FINE, one class
    captioner  BLIP-2 with an OPT head
    clip       a CLIP of open_clip
    evaluate   figures on fresh scenes, and whether a repeated training lies where the card says
    ship       trains, measures and lays out one mini (`fineclip train-mini`)

Nothing real imports them: the checkpoints that ship lie in `pipeline/models/checkpoints/`, and the backends load them
by the code that loads any other.
"""
