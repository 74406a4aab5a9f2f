"""Whether a tag's weights can be had: asked once, where downloads would be tried again for most of a minute."""

import os
import urllib.request
from pathlib import Path
from urllib.error import HTTPError

import open_clip
from huggingface_hub import constants, hf_hub_url, try_to_load_from_cache
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME

from trainer.errors import TrainingError

_TIMEOUT_S = 10


def check_available(model: str, tag: str) -> None:
    """Raise TrainingError, naming what to download, where a tag's weights are neither cached nor within reach.

    Also where open_clip knows no such tag of the model, as after --model without --pretrained, and where they were
    trained with another activation than the model's, of which open_clip only warns.
    """
    known = open_clip.get_pretrained_cfg(model, tag)
    if not known and open_clip.get_model_config(model) is not None:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(model))
        raise TrainingError(
            f"model {model}: open_clip has no weights {tag!r} of it; give by --pretrained a file, None for random "
            f"weights{f', or one of {tags}' if tags else ''} (to evaluate, {model}:FILE)"
        )
    has_quick_gelu = (open_clip.get_model_config(model) or {}).get("quick_gelu", False)
    if known and known.get("quick_gelu", False) != has_quick_gelu:
        other = model.removesuffix("-quickgelu") if has_quick_gelu else f"{model}-quickgelu"
        raise TrainingError(
            f"model {model} with weights {tag}: these weights were trained {'without' if has_quick_gelu else 'with'} "
            f"QuickGELU, so their features would be wrong: give --model {other} (to evaluate, {other}:{tag})"
        )
    repository, file_name = os.path.split(known.get("hf_hub", ""))
    if repository:
        names = [file_name] if file_name else [HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME]
        if any(isinstance(try_to_load_from_cache(repository, name), str) for name in names):
            return
        url = hf_hub_url(repository, names[0])
    else:
        url = known.get("url", "")
        if not url or (Path("~/.cache/clip").expanduser() / Path(url).name).is_file():
            return
    try:
        if repository and constants.HF_HUB_OFFLINE:
            raise OSError("HF_HUB_OFFLINE is set")
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_TIMEOUT_S).close()  # noqa: S310
    except HTTPError:
        return  # somebody answers, and will say what is wrong
    except OSError as error:
        raise TrainingError(
            f"model {model} with weights {tag}: they are not on this machine and cannot be downloaded from "
            f"here ({error}). Download {url} elsewhere and give it by --pretrained FILE (to evaluate, {model}:FILE)"
        ) from error
