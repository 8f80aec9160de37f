"""Declares two operators without which a torchvision wheel for CUDA cannot be imported next to a CPU build of torch.

conftest.py imports this file; Python runs it in every process with this folder on its path, such as vLLM's.
"""

import importlib

import torch

try:
    importlib.import_module("torchvision")
except RuntimeError:
    operators = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    importlib.import_module("torchvision")
