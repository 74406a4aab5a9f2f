"""The data set card: front matter that tells Hugging Face `datasets` how to read the shards, then words for people."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

_REGION = [
    {"name": "id", "dtype": "string"},
    {"name": "box", "list": "float32"},
    {"name": "label", "dtype": "string"},
    {"name": "proposer", "dtype": "string"},
    {"name": "proposal_score", "dtype": "float32"},
    {"name": "caption", "dtype": "string"},
    {"name": "captioner", "dtype": "string"},
    {"name": "caption_score", "dtype": "float32"},
    {"name": "text_hash", "dtype": "string"},
    {"name": "source_id", "dtype": "string"},
    {"name": "is_crowd", "dtype": "bool"},
    {"name": "mask_rle", "dtype": "string"},
]
_SOURCE = [
    {"name": "uri", "dtype": "string"},
    {"name": "index", "dtype": "int64"},
    {"name": "url", "dtype": "string"},
    {"name": "license", "dtype": "string"},
]
_RECORD = [
    {"name": "schema_version", "dtype": "string"},
    {"name": "key", "dtype": "string"},
    {"name": "width", "dtype": "int32"},
    {"name": "height", "dtype": "int32"},
    {"name": "image_sha256", "dtype": "string"},
    {"name": "reencoded", "dtype": "bool"},
    {"name": "image_caption", "dtype": "string"},
    {"name": "source", "struct": _SOURCE},
    {"name": "num_regions", "dtype": "int32"},
    {"name": "regions", "list": _REGION},
    {"name": "image_captions", "list": "string"},
]
_FEATURES = [
    {"name": "__key__", "dtype": "string"},
    {"name": "__url__", "dtype": "string"},
    {"name": "jpg", "dtype": "image"},
    {"name": "png", "dtype": "image"},
    {"name": "webp", "dtype": "image"},
    {"name": "txt", "dtype": "string"},
    {"name": "json", "struct": _RECORD},
]
"""The members of a sample; those that a sample lacks are read as null."""

_TEXT = """\
# Region-text pairs

{ok} images with {regions} captioned regions, made by FineCLIP Regions from {inputs}.
Proposer: `{proposer}`. Captioner: `{captioner}`.

Each sample has an image (`jpg`, `png` or `webp`: the source's own bytes unless `reencoded`), its caption (`txt`, where
there is one) and a record (`json`) with the regions: box, label, caption, scores, and where they came from. Boxes are
`[x0, y0, x1, y1]` in pixels of the stored image, right and bottom exclusive. `*.parquet` beside each tar has a row for
every image and region, those that did not make it included, with the reason.

| | inputs | ok | filtered | dead |
|---|---|---|---|---|
{table}

```python
from datasets import load_dataset

sample = load_dataset("PATH/TO/THIS/FOLDER", split="train")[0]
print(sample["json"]["regions"][0])
```

The licences of the images are those of their sources; the record's `source` names them where the source did.
"""


def card(dataset: dict[str, Any], splits: Sequence[str], sections: Mapping[str, str] | None = None) -> str:
    """Return the card of a data set: YAML front matter and text, from the contents of `dataset.json`.

    `sections` are more of it in Markdown, by title (`fineclip card` makes them of what it measures).
    """
    files = [{"split": "validation" if split == "val" else split, "path": f"{split}-*.tar"} for split in splits]
    front: dict[str, Any] = {
        "pretty_name": "Region-text pairs",
        "task_categories": ["zero-shot-image-classification", "image-to-text"],
        "tags": ["webdataset", "region-text", "fineclip"],
        "configs": [{"config_name": "default", "data_files": files}],
        "dataset_info": {"config_name": "default", "features": _FEATURES},
    }
    if sections is not None:
        front["size_categories"] = [_size_category(dataset["images"]["ok"])]
    rows = [
        f"| {name} | {counts['inputs']} | {counts['ok']} "
        f"| {_reasons(counts['filtered'])} | {_reasons(counts['dead'])} |"
        for name, counts in (("images", dataset["images"]), ("regions", dataset["regions"]))
    ]
    text = _TEXT.format(
        ok=dataset["images"]["ok"],
        regions=dataset["regions"]["ok"],
        inputs=", ".join(f"`{planned['spec']}`" for planned in dataset["inputs"]),
        proposer=dataset["configuration"]["proposer"]["name"],
        captioner=dataset["configuration"]["captioner"]["name"],
        table="\n".join(rows),
    )
    more = "".join(f"\n## {title}\n\n{body.rstrip()}\n" for title, body in (sections or {}).items())
    return f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n{text}{more}"


def _reasons(by_reason: dict[str, int]) -> str:
    if not by_reason:
        return "0"
    return (
        f"{sum(by_reason.values())} ({', '.join(f'{reason} {count}' for reason, count in sorted(by_reason.items()))})"
    )


def _size_category(num_images: int) -> str:
    """Return the hub's name of a size."""
    ends = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))
    return next((name for end, name in ends if num_images < end), "10M<n<100M" if num_images < 10**8 else "n>100M")
