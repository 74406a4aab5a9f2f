"""Checkpoints of the real architectures with random weights: they prove plumbing, and their output means nothing."""

import hashlib
import importlib
from pathlib import Path

import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.propose.ultralytics import import_ultralytics


def random_yolov9(path: Path, variant: str = "t") -> str:
    """Write a YOLOv9 as Ultralytics publishes them (a pickled .pt) and return its sha256."""
    torch.manual_seed(0)
    yolo = import_ultralytics().YOLO(f"yolov9{variant}.yaml", task="detect")
    _spread_activations(yolo.model, _noise())
    yolo.save(path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def random_libreyolo(path: Path, *, size: str = "t", num_classes: int = 3) -> str:
    """Write a YOLOv9 as libreyolo does, .safetensors or .pt by the suffix of `path`, and return its sha256."""
    from libreyolo.models.yolo9.nn import LibreYOLO9Model

    torch.manual_seed(0)
    model = LibreYOLO9Model(config=size, nb_classes=num_classes)
    _spread_activations(model, _noise())
    state = model.state_dict()
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"model": state, "names": {index: f"thing {index}" for index in range(num_classes)}}, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def random_fastsam(path: Path) -> str:
    """Write a FastSAM as Ultralytics publishes them, of the smallest YOLOv8's size, and return its sha256."""
    torch.manual_seed(0)
    import_ultralytics()
    tasks = importlib.import_module("ultralytics.nn.tasks")
    model = tasks.SegmentationModel("yolov8n-seg.yaml", nc=1, verbose=False)
    _spread_activations(model, _noise())
    torch.save({"model": model, "train_args": {"task": "segment"}}, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _noise() -> Tensor:
    """Return `[4, 3, 128, 128]` in 0..1: two images of fine noise, two of coarse noise."""
    coarse = nn.functional.interpolate(torch.rand(2, 3, 9, 9), 128, mode="bilinear")
    return torch.cat([torch.rand(2, 3, 128, 128), coarse])


def _spread_activations(model: nn.Module, images: Tensor) -> None:
    """Give batch norms the statistics of `images`: as they are initialised, all images look alike to a deep model."""

    def fit(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        norm.running_mean.copy_(inputs[0].mean(dim=(0, 2, 3)))
        norm.running_var.copy_(inputs[0].var(dim=(0, 2, 3)))

    norms = [module for module in model.modules() if hasattr(module, "running_mean")]
    hooks = [norm.register_forward_pre_hook(fit) for norm in norms]
    with torch.inference_mode():
        model.eval()(images)
    for hook in hooks:
        hook.remove()


def random_rpn(path: Path, model: str = "fasterrcnn_mobilenet_v3_large_320_fpn") -> None:
    """Write the state of a torchvision Faster R-CNN, .safetensors or .pth by the suffix of `path`."""
    torch.manual_seed(0)
    network = torchvision.models.get_model(model, weights=None, weights_backbone=None)
    _spread_activations(network.backbone, 4 * _noise() - 2)
    # As it is initialised, every anchor scores nearly 0.5, and rounding would decide the order.
    network.rpn.head.cls_logits.weight.data *= 5
    state = network.state_dict()
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)


def random_sam(folder: Path, side: int = 128) -> None:
    """Write a Segment Anything of 0.1 M parameters and `side` pixels in the hub's layout.

    It predicts an IoU of about 0.95 of any mask; no mask is stable (`min_stability` 0 keeps them).
    """
    from transformers import SamConfig, SamImageProcessor, SamModel

    torch.manual_seed(0)
    width, deviation = 32, 0.2
    config = SamConfig(
        vision_config={
            "hidden_size": width,
            "output_channels": width,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "global_attn_indexes": [1],
            "num_pos_feats": width // 2,
            "window_size": 4,
            "initializer_range": deviation,  # its own is 1e-10, with which all images look alike
            "image_size": side,
        },
        prompt_encoder_config={"hidden_size": width, "image_size": side},
        mask_decoder_config={
            "hidden_size": width,
            "mlp_dim": width,
            "num_attention_heads": 2,
            "iou_head_hidden_dim": width,
        },
        initializer_range=deviation,
    )
    model = SamModel(config)
    last = model.mask_decoder.iou_prediction_head.proj_out
    last.weight.data /= 300
    last.bias.data += 0.94
    model.save_pretrained(folder)
    SamImageProcessor(size={"longest_edge": side}, pad_size={"height": side, "width": side}).save_pretrained(folder)


def random_blip2(folder: Path) -> None:
    """Write a small BLIP-2 with an OPT head in the hub's layout."""
    from pipeline.minis.captioner import build_model, build_processor, save

    torch.manual_seed(0)
    processor = build_processor()
    save(build_model(processor.tokenizer), processor, folder)
