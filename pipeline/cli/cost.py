"""What the paper's models would cost on this machine's CPU: their arithmetic over the rate measured here and now."""

import time

import numpy as np

_YOLOV9C_FLOP = 102.8e9
"""One 640 x 640 image: the figure its authors publish."""
_BLIP2_PARAMETERS = 7.75e9
_BLIP2_FLOP = 2 * (1.0e9 * 257 + 6.7e9 * (32 + 12))
"""One region: 257 image tokens through ViT-g (1.0 G parameters), 32 query and 12 new ones through OPT-6.7b."""
_REGIONS_PER_IMAGE = 4.2
"""10.4 M regions over 2.5 M images (the paper, section on CC2.5M)."""
_SIDE = 1024
_MEASURE_S = 0.3


def measured_flops() -> float:
    """Return this CPU's float32 rate on matrix products, in floating-point operations a second."""
    matrix = np.ones((_SIDE, _SIDE), dtype=np.float32)
    products, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < _MEASURE_S:
        matrix @ matrix
        products += 1
    return products * 2 * _SIDE**3 / elapsed


def cpu_cost() -> str:
    """Return the sentences that `--profile paper` prints where there is no GPU."""
    rate = measured_flops()
    image_s = (_YOLOV9C_FLOP + _REGIONS_PER_IMAGE * _BLIP2_FLOP) / rate
    memory_gb = _BLIP2_PARAMETERS * 4 / 1e9
    need = (
        f"at least {image_s:,.0f} s and {memory_gb:.0f} GB of memory, 1,000 images {1000 * image_s / 3600:,.1f} hours"
    )
    return (
        "the paper's models want a GPU, and none was found. "
        f"On this CPU ({rate / 1e9:,.0f} GFLOP/s, measured just now) an image with {_REGIONS_PER_IMAGE} regions would "
        f"take {need}.\nGive --profile weightless (nothing to download) or --profile mini (synthetic scenes only); "
        "--device cpu to run it all the same; --device cuda where the workers of another engine have GPUs"
    )
