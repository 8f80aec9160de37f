"""The part of the model that an instruction of the compiled step belongs to, by the named scopes in its op_name.

    op_name                                                                   part
    jit(step)/optimizer/jvp(model)/llm/while/body/attention/dot_general       attention: the innermost scope counts
    jit(step)/optimizer/jvp(model)/llm/while/body/BSD,DF->BSF/dot_general     LLM matmuls
    jit(step)/optimizer/sqrt                                                  optimizer
    jit(step)/optimizer/jvp(model)/dot_general                                other: in no module of the model

Some instructions have no such path: those that the compiler added, and those that jax moved out of a loop, which are
"jit(step)/mul". Such a fusion has the path of what it fuses; anything else belongs to the part of its user.
"""

import re

from molmo2_jax.aot.hlo import Instruction, Module

COLLECTIVES, OTHER = "collectives", "other"

# Scope -> part. "LLM" and "ViT" are reported as matmuls and the rest. "model" is what the model does between its
# modules: masks and rates of a row, without matrix products.
SCOPES = {
    "vit": "ViT",
    "crop_attention": "ViT attention",
    "connector": "connector",
    "embedding": "embedding",
    "llm": "LLM",
    "attention": "attention",
    "loss": "loss",
    "model": "LLM",
    "optimizer": "optimizer",
}
_SCOPE = re.compile(rf"(?<![^/(:])({'|'.join(SCOPES)})(?![^/):])")
_COPIES = {"copy", "transpose", "reshape", "bitcast-convert", "slice", "concatenate", "pad", "broadcast"}


def scope(module: Module, i: Instruction) -> str | None:
    """The scope of SCOPES that an instruction belongs to; None if jax traced it in none of them."""
    names = (x.op_name for x in module.with_fused(i))
    path = next((name for name in names if _is_path(name)), None)
    if path is not None:
        return _innermost(path)
    return next((found for near in module.neighbours(i) if (found := _innermost(module.op_name(near)))), None)


def _is_path(op_name: str) -> bool:
    """Whether the name tells where it was traced: "jit(step)/optimizer/mul", but not "jit(step)/mul" or "convert.6"."""
    return op_name.startswith("jit(") and op_name.count("/") > 1


def _innermost(op_name: str) -> str | None:
    found = _SCOPE.findall(op_name)
    return found[-1] if found else None


def part(module: Module, i: Instruction, collective: bool) -> str:
    """The part's name: "LLM matmuls", "attention", "copies, ViT", ...

    OTHER: it was traced in no scope, or it is a matrix product of the model in none of its modules.
    """
    if collective:
        return COLLECTIVES
    in_scope = scope(module, i)
    found = SCOPES.get(in_scope, OTHER)
    if i.opcode.removesuffix("-start") in _COPIES:
        return f"copies, {'ViT' if found.startswith('ViT') else 'rest'}"
    if found not in ("LLM", "ViT"):
        return found
    inner = (x for name in i.called for x in module.inside(name))
    if not any(x.opcode in ("convolution", "dot") for x in (i, *inner)):
        return f"{found} norms, elementwise"
    return OTHER if in_scope == "model" else f"{found} matmuls"
