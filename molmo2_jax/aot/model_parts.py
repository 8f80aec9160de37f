"""Which part of the model an instruction of the compiled step belongs to, by the named scopes it was traced in.

op_name                                                              part
jit(step)/optimizer/jvp(llm)/while/body/attention/dot_general        attention: the innermost scope counts
jit(step)/optimizer/transpose(jvp(llm))/while/body/BSD,DF->BSF/...   LLM matmuls, or LLM norms, elementwise
jit(step)/optimizer/add                                              optimizer
jit(step)/optimizer/jvp()/add                                        other: the model has an op without a scope
(none; the compiler made it)                                         as what uses its result, or gives its operands
"""

import re

from molmo2_jax.aot.hlo import Instruction, Module

COLLECTIVES, OTHER = "collectives", "other"

# Scope -> part. "LLM" and "ViT" are reported as matmuls and the rest.
SCOPES = {
    "vit": "ViT",
    "crop_attention": "ViT attention",
    "connector": "connector",
    "embedding": "embedding",
    "llm": "LLM",
    "attention": "attention",
    "loss": "loss",
    "optimizer": "optimizer",
}
_SCOPE = re.compile(rf"(?<![^/(:])({'|'.join(SCOPES)})(?![^/):])")
_COPIES = {"copy", "transpose", "reshape", "bitcast-convert", "slice", "concatenate", "pad", "broadcast"}


def scope(module: Module, i: Instruction) -> str | None:
    """The scope of SCOPES an instruction belongs to; None where jax traced it in none of them."""
    name = module.op_name(i)
    if _is_traced(name):
        return _innermost(name)
    return next((found for near in module.neighbours(i) if (found := _innermost(module.op_name(near)))), None)


def _is_traced(op_name: str) -> bool:
    """Whether jax gave the name: the compiler's own are "" or those of an instruction, "convert.6"."""
    return op_name.startswith("jit(")


def _innermost(op_name: str) -> str | None:
    found = list(_SCOPE.finditer(op_name))
    if not found:
        return None
    # The whole step is traced in "optimizer". What it differentiates, the model, has scopes of its own.
    if found[-1][1] == "optimizer" and "jvp(" in op_name[found[-1].end() :]:
        return None
    return found[-1][1]


def part(module: Module, i: Instruction, collective: bool) -> str:
    """The part's name: "LLM matmuls", "attention", "copies, ViT", ...; OTHER for what was traced in no scope."""
    if collective:
        return COLLECTIVES
    found = SCOPES.get(scope(module, i), OTHER)
    if i.opcode.removesuffix("-start") in _COPIES:
        return f"copies, {'ViT' if found.startswith('ViT') else 'rest'}"
    if found in ("LLM", "ViT"):
        products = any(x.opcode in ("convolution", "dot") for name in i.called for x in module.inside(name))
        return f"{found} {'matmuls' if products or i.opcode in ('convolution', 'dot') else 'norms, elementwise'}"
    return found
