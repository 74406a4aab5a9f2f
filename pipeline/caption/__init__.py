"""Captioners: crops in, sentences out. A backend is one file here and one line in `CAPTIONERS`; or another package's.

base        the protocol
blip2       BLIP-2 by transformers
vlm         any model that sees and is asked, by transformers
openai      any server that speaks OpenAI's chat completions
clip_rule   the concept of a pool nearest to the region under a CLIP, in a template: RegionCLIP's rule
label       the label that the proposer gives; no weights
rule        sentences made from colours, size and position; no weights

clip        a CLIP by open_clip, for `clip_rule`
concepts    pools of concepts, for `clip_rule`
colours     names of colours, for `rule`
generation  decoding and scores, for `blip2` and `vlm`
client      a server, its errors in words, proxies, for `openai`
patience    retries, rate limit and waiting, for `openai`
secrets     keys and passwords, for `openai`
fleet       several servers of one model, for `openai`
managed     a server of a worker's own, for `openai`; supervise: what ends it with its worker
view        what a captioner sees of a region: the crop, context, the whole image with a box, or the mask
crop        windows of an image
pixels      crops sent to a device, or scaled
step        the step of the flow: crops in batches over images, answers to captions
judge       what becomes of an answer, and whether the model sees pictures at all
normalise   what a captioner returned, tidied or refused
repetition  whether a text is that of a model that got stuck
locations   tokens that say places in an answer, for `vlm`
thoughts    what chat models think before they answer
"""

import dataclasses
from typing import Any

from pipeline.registry import Registry

CAPTIONERS: dict[str, str] = {
    "blip2": "pipeline.caption.blip2:Blip2",
    "clip_rule": "pipeline.caption.clip_rule:ClipRule",
    "given": "pipeline.caption.given:Given",
    "label": "pipeline.caption.label:Label",
    "openai": "pipeline.caption.openai:Openai",
    "rule": "pipeline.caption.rule:Rule",
    "vlm": "pipeline.caption.vlm:Vlm",
}
"""Name of each captioner of ours and where its class is, "module:Class"."""


def _settings_of_all() -> frozenset[str]:
    from pipeline.caption.view import ViewSettings

    return frozenset(field.name for field in dataclasses.fields(ViewSettings))


captioners = Registry(
    kind="captioner", own=CAPTIONERS, group="fineclip.captioners", method="caption", taken=_settings_of_all
)
"""All that are installed."""


def captioner_class(name: str) -> type[Any]:
    """Import and return the captioner class called `name`: it is built as `cls(config, device=device)`.

    Raises ValueError, listing the known names, for any other name; and as `Registry.load` does.
    """
    return captioners.load(name)
