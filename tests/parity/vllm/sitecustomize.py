"""Makes torchvision importable where its wheel was made for CUDA and torch is a CPU build: two operators are declared.

conftest.py imports it; Python runs it at the start of every process that has this folder on its path, as vLLM's have.
"""

import torch

try:
    import torchvision
except RuntimeError:
    operators = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision  # noqa: F401
