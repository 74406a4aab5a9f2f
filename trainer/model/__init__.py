"""The towers, and the features that they give.

open, eva_weights    open_clip's models, files and the original EVA-CLIP layout; pretrained: by tag
towers, backbone     vision towers taken apart; one pass gives global and dense features
taps                 tokens of several blocks and the dense map, for detectors and segmenters
text, text_cache     captions, encoded once or trained
student              all features of a batch, and the teachers
export, formats      weights for other libraries; saved_file: theirs and ours, read with their checksums
"""
