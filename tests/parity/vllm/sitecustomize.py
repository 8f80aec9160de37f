"""Makes torchvision importable where its wheel was made for CUDA and torch is a CPU build, as conftest.py does here.

Python runs this at the start of every process that has this folder on its path: vLLM starts some of its own.
"""

import torch

try:
    import torchvision
except RuntimeError:
    operators = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision  # noqa: F401
