"""Which part of the model an instruction of the compiled step belongs to, told by the source it was traced in."""

from molmo2_jax.tools.aot.hlo import Instruction, Module

COLLECTIVES = "collectives"
COPIES = "copies and layout"

# The first whose text is in one of the frames wins: a ViT layer also stands in models/layers.py.
_SOURCES = (
    ("models/vit.py", "ViT"),
    ("models/connector.py", "connector"),
    ("ops/loss.py", "loss"),
    ("molmo2.py:Molmo2.hidden.<locals>.attend", "attention"),
    ("ops/attention", "attention"),
    ("models/llm.py:Embedding", "embedding"),
    ("models/llm.py", "LLM"),
    ("train/optim.py", "optimizer"),
    ("optax/", "optimizer"),
    ("train/step.py", "optimizer"),
)
_COPIES = ("copy", "copy-start", "transpose", "reshape", "bitcast-convert", "slice", "concatenate", "pad", "broadcast")


def part(module: Module, i: Instruction, collective: bool) -> str:
    """The part's name: "LLM matmuls", "attention", "ViT", …; what has no source is named by what it does."""
    if collective:
        return COLLECTIVES
    if i.opcode in _COPIES:
        return COPIES
    frames = module.source(i)
    found = next((name for text, name in _SOURCES if any(text in frame for frame in frames)), None)
    if found == "LLM":
        products = any(x.opcode in ("convolution", "dot") for name in i.called for x in module.inside(name))
        return "LLM matmuls" if products or i.opcode == "convolution" else "LLM norms, RoPE, elementwise"
    return "other" if found is None else found
