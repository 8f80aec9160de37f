"""Which part of the model an instruction of the compiled step belongs to, told by the source it was traced in."""

from molmo2_jax.tools.aot.hlo import Instruction, Module

COLLECTIVES = "collectives"

# The first whose text is in one of the frames wins: a ViT layer also stands in models/layers.py.
_SOURCES = (
    ("ops/crop_attention.py", "ViT attention"),
    ("ops/pallas_crop_attention.py", "ViT attention"),
    ("models/vit.py", "ViT"),
    ("models/connector.py", "connector"),
    ("ops/loss.py", "loss"),
    ("molmo2.py:Molmo2.hidden.<locals>.attend", "attention"),
    ("models/llm.py:Embedding", "embedding"),
    ("models/llm.py", "LLM"),
    ("train/optim.py", "optimizer"),
    ("optax/", "optimizer"),
    ("train/step.py", "optimizer"),
)
_COPIES = ("copy", "copy-start", "transpose", "reshape", "bitcast-convert", "slice", "concatenate", "pad", "broadcast")
_STACKS = ("LLM", "ViT")  # told apart by matmuls and the rest


def part(module: Module, i: Instruction, collective: bool) -> str:
    """The part's name: "LLM matmuls", "attention", "copies, ViT", …; what has no source is "other"."""
    if collective:
        return COLLECTIVES
    frames = module.source(i)
    found = next((name for text, name in _SOURCES if any(text in frame for frame in frames)), "other")
    if i.opcode in _COPIES:
        return f"copies, {'ViT' if found.startswith('ViT') else 'rest'}"
    if found in _STACKS:
        products = any(x.opcode in ("convolution", "dot") for name in i.called for x in module.inside(name))
        return f"{found} {'matmuls' if products or i.opcode in ('convolution', 'dot') else 'norms, elementwise'}"
    return found
