"""Captioners: crops in, sentences out. A backend is one file here and one line in `CAPTIONERS`.

base      the protocol
blip2     BLIP-2 by transformers
rule      sentences made from colours, size and position; no weights
colours   names of colours, for `rule`
"""

from typing import Any

from pipeline.backends import load_backend

CAPTIONERS: dict[str, str] = {
    "blip2": "pipeline.caption.blip2:Blip2",
    "rule": "pipeline.caption.rule:Rule",
}
"""Name of each captioner and where its class is, "module:Class"."""


def captioner_class(name: str) -> type[Any]:
    """Import and return the captioner class called `name`: it is built as `cls(config, device=device)`.

    Raises ValueError, listing the known names, for any other name.
    """
    return load_backend(CAPTIONERS, "captioner", name)
