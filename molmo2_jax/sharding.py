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
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

DATA, FSDP, CONTEXT, TENSOR = MESH_AXES = ("data", "fsdp", "context", "tensor")

ROWS = (DATA, FSDP)  # mesh axes that cut the batch
TOKENS = (DATA, FSDP, CONTEXT)  # mesh axes that cut the tokens of a batch

# Logical axis of a parameter -> mesh axis it is stored on. An axis that is not here is a mistake and raises.
PARAMETER_RULES = {
    "layers": None,
    "embed": FSDP,
    "heads": TENSOR,
    "kv_heads": TENSOR,
    "head_dim": None,
    "mlp": TENSOR,
    "vocab": TENSOR,
    "new_vocab": None,
    "patch": None,
    "pixels": None,
    "vit_embed": FSDP,
    "vit_features": None,
    "norm": None,
}

WHOLE = P()
B = P(ROWS)
B_S = P(ROWS, CONTEXT)
B_S_D = P(ROWS, CONTEXT, None)
B_S_N_H = P(ROWS, CONTEXT, TENSOR, None)
B_S_F = P(ROWS, CONTEXT, TENSOR)
# Crops and pooled tokens are cut into vision shards along `context`, as the sequence is.
B_C_P_D = P(ROWS, CONTEXT, None, None)
B_G_K = P(ROWS, CONTEXT, None)
B_G_N_H = P(ROWS, CONTEXT, TENSOR, None)
B_G_K_D = P(ROWS, CONTEXT, None, None)
B_G_K_N_H = P(ROWS, CONTEXT, None, TENSOR, None)


def make_mesh(sizes: Mapping[str, int], devices: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
    """An Explicit mesh with `sizes[axis]` devices along each of MESH_AXES.

    Several TPU slices lie one behind the other along `data`, so that only its gradient sums cross the network between
    them (DCN), once a step; within a slice jax places the axes on the links.

        data 4, fsdp 2 on slices a and b of 4 devices each:    a0 a1    a2 a3    b0 b1    b2 b3
                                                       data      0        1        2        3

    Raises:
      ValueError: an axis is missing, unknown or below 1, the product is not the number of devices, or `data` is no
        multiple of the number of slices.
    """
    if set(sizes) != set(MESH_AXES):
        raise ValueError(f"a mesh needs exactly the axes {MESH_AXES}, got {tuple(sizes)}")
    devices = jax.devices() if devices is None else devices
    shape = tuple(sizes[axis] for axis in MESH_AXES)
    if min(shape) < 1:
        raise ValueError(f"mesh {dict(sizes)}: a size is at least 1")
    if math.prod(shape) != len(devices):
        raise ValueError(f"mesh {dict(sizes)} wants {math.prod(shape)} devices, there are {len(devices)}")
    slices = _slices(devices)
    if shape[0] % len(slices):
        raise ValueError(f"mesh {dict(sizes)}: data must be a multiple of the {len(slices)} slices that devices are of")
    part = (shape[0] // len(slices), *shape[1:])
    # An axis may take part of a torus axis: context = 2 of a slice 4x4x4.
    placed = [mesh_utils.create_device_mesh(part, one, allow_split_physical_axes=True) for one in slices]
    grid = np.concatenate(placed)
    return jax.sharding.Mesh(grid, MESH_AXES, axis_types=(AxisType.Explicit,) * len(MESH_AXES))


def _slices(devices: Sequence[jax.Device]) -> list[list[jax.Device]]:
    """Devices by the TPU slice they are of, a part of a pod with links of its own. Other devices count as of one.

    jax numbers the hosts of GPUs as slices, too; there the mesh is whatever the config says.
    """
    slices = {}
    for device in devices:
        index = getattr(device, "slice_index", 0) if device.platform == "tpu" else 0
        slices.setdefault(index, []).append(device)
    sizes = {index: len(one) for index, one in slices.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"slices have different sizes: {sizes}")
    return [slices[index] for index in sorted(slices)]


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
    return P(*(None if PARAMETER_RULES[a] == FSDP else PARAMETER_RULES[a] for a in axes))


def check_divides(dims: Mapping[str, tuple], mesh: jax.sharding.Mesh) -> None:
    """ValueError naming the first dimension that its mesh axes do not divide. `dims`: {what: (size, mesh axes)}."""
    for name, (size, axis) in dims.items():
        ways = math.prod(mesh.shape[a] for a in ((axis,) if isinstance(axis, str) else axis))
        if size % ways:
            raise ValueError(f"{name} = {size} cannot be cut {ways} ways over mesh axis {axis}")


def local_rows(batch: int, mesh: jax.sharding.Mesh) -> list[int]:
    """Indices of a global batch's rows that this process' devices hold."""
    held = NamedSharding(mesh, B).addressable_devices_indices_map((batch,)).values()
    return sorted({row for (rows,) in held for row in range(*rows.indices(batch))})


def row_sharers(batch: int, mesh: jax.sharding.Mesh) -> list[int]:
    """Indices of the processes that hold a row of a global batch which this one holds, too; this one's among them."""
    rows = set(local_rows(batch, mesh))
    held = NamedSharding(mesh, B).devices_indices_map((batch,)).items()
    return sorted({device.process_index for device, (cut,) in held if rows & set(range(*cut.indices(batch)))})


def put_rows(arrays: Mapping[str, jax.typing.ArrayLike], mesh: jax.sharding.Mesh) -> dict[str, jax.Array]:
    """Local rows [B_local, ...] of this process -> global arrays, rows over ROWS and dimension 1 over `context`.

    Each array holds whole rows, also where `context` is cut between processes.
    """
    ways = math.prod(mesh.shape[axis] for axis in ROWS)
    share = ways // len(local_rows(ways, mesh))  # the global batch is so many times the local one
    out = {}
    for name, x in arrays.items():
        spec = NamedSharding(mesh, P(ROWS, CONTEXT, *(None,) * (x.ndim - 2)))
        out[name] = jax.make_array_from_process_local_data(spec, x, (x.shape[0] * share, *x.shape[1:]))
    return out
