"""Every partitioning decision, in one place: the mesh, and which mesh axis each logical axis lies on.

Mesh axes: `data` replicates parameters, `fsdp` shards them, `context` cuts the sequence, `tensor` cuts heads, mlp and
vocabulary. Rows (B) are spread over data x fsdp.

    parameter  [embed, heads, head_dim]   stored P(fsdp, tensor, -)   used P(-, tensor, -): the layer gathers fsdp
    activation [B, S, D]                  P((data, fsdp), context, -)
    activation [B, S, N, H]               P((data, fsdp), context, tensor, -)
"""

import math
from collections.abc import Mapping, Sequence

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

MESH_AXES = ("data", "fsdp", "context", "tensor")

ROWS = ("data", "fsdp")  # mesh axes that cut the batch

# Logical axis of a parameter -> mesh axis it is stored on. An axis that is not here is a mistake and raises.
PARAMETER_RULES = {
    "layers": None,
    "embed": "fsdp",
    "heads": "tensor",
    "kv_heads": "tensor",
    "head_dim": None,
    "mlp": "tensor",
    "vocab": "tensor",
    "new_vocab": None,
    "patch": None,
    "pixels": None,
    "vit_embed": "fsdp",
    "vit_features": None,
    "norm": None,
}

V_D = P("tensor", None)  # a vocabulary table in use
B_V = P(ROWS, "tensor")
WHOLE = P()
B = P(ROWS)
B_S = P(ROWS, "context")
B_S_D = P(ROWS, "context", None)
B_S_N_H = P(ROWS, "context", "tensor", None)
B_S_F = P(ROWS, "context", "tensor")
# Crops and pooled tokens are cut into vision shards along `context`, as the sequence is.
B_C_P_D = P(ROWS, "context", None, None)
B_C_P_N_H = P(ROWS, "context", None, "tensor", None)
B_C_P_F = P(ROWS, "context", None, "tensor")
B_G_K = P(ROWS, "context", None)
B_G_N_H = P(ROWS, "context", "tensor", None)
B_G_K_D = P(ROWS, "context", None, None)
B_G_K_N_H = P(ROWS, "context", None, "tensor", None)


def make_mesh(sizes: Mapping[str, int], devices: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
    """An Explicit mesh with `sizes[axis]` devices along each of MESH_AXES.

    Raises:
      ValueError: an axis is missing, unknown or below 1, or the product is not the number of devices.
    """
    if set(sizes) != set(MESH_AXES):
        raise ValueError(f"a mesh needs exactly the axes {MESH_AXES}, got {tuple(sizes)}")
    devices = jax.devices() if devices is None else devices
    shape = tuple(sizes[axis] for axis in MESH_AXES)
    if min(shape) < 1:
        raise ValueError(f"mesh {dict(sizes)}: a size is at least 1")
    if math.prod(shape) != len(devices):
        raise ValueError(f"mesh {dict(sizes)} wants {math.prod(shape)} devices, there are {len(devices)}")
    return jax.make_mesh(shape, MESH_AXES, devices=devices)


def stored(axes: Sequence[str], ndim: int) -> P:
    """Spec a parameter is stored with. Stacked layers add leading dimensions that `axes` does not name."""
    axes = ("layers",) * (ndim - len(axes)) + tuple(axes)
    spec = [PARAMETER_RULES[axis] for axis in axes]
    used = [a for a in spec if a is not None]
    if len(used) != len(set(used)):
        raise ValueError(f"logical axes {axes} claim a mesh axis twice: {spec}")
    return P(*spec)


def gathered(axes: Sequence[str]) -> P:
    """Spec a parameter is used with inside a layer: as stored, fsdp gathered."""
    return P(*(None if PARAMETER_RULES[a] == "fsdp" else PARAMETER_RULES[a] for a in axes))


def check_divides(dims: Mapping[str, tuple], mesh: jax.sharding.Mesh) -> None:
    """ValueError naming the first dimension that its mesh axes do not divide. `dims`: {what: (size, mesh axes)}."""
    for name, (size, axis) in dims.items():
        ways = math.prod(mesh.shape[a] for a in ((axis,) if isinstance(axis, str) else axis))
        if size % ways:
            raise ValueError(f"{name} = {size} cannot be cut {ways} ways over mesh axis {axis}")


def put_rows(arrays: Mapping[str, jax.typing.ArrayLike], mesh: jax.sharding.Mesh) -> dict[str, jax.Array]:
    """Local rows [B_local, ...] of this process -> global arrays, rows over ROWS and dimension 1 over `context`."""
    out = {}
    for name, x in arrays.items():
        spec = P(ROWS, "context", *(None,) * (x.ndim - 2))
        out[name] = jax.make_array_from_process_local_data(NamedSharding(mesh, spec), x)
    return out
