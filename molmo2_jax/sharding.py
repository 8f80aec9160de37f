"""Every partitioning decision in one file: the mesh, and the mesh axis that each logical axis is sharded over.

Mesh axes: `data` replicates parameters, `fsdp` shards parameters, `context` shards the sequence, `tensor` shards heads,
mlp and vocabulary. Rows (B) are sharded over data x fsdp.

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

ROWS = (DATA, FSDP)  # mesh axes that the batch is sharded over
TOKENS = (DATA, FSDP, CONTEXT)  # mesh axes that the tokens of a batch are sharded over

# Logical axis of a parameter -> mesh axis that it is sharded over. A missing axis raises KeyError.
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

REPLICATED = P()
B = P(ROWS)
B_S = P(ROWS, CONTEXT)
B_S_D = P(ROWS, CONTEXT, None)
B_S_N_H = P(ROWS, CONTEXT, TENSOR, None)
B_S_F = P(ROWS, CONTEXT, TENSOR)
# Crops and pooled tokens are split into vision shards along `context`, like the sequence.
B_C_P_D = P(ROWS, CONTEXT, None, None)
B_G_K = P(ROWS, CONTEXT, None)
B_G_N_H = P(ROWS, CONTEXT, TENSOR, None)
B_G_K_D = P(ROWS, CONTEXT, None, None)
B_G_K_N_H = P(ROWS, CONTEXT, None, TENSOR, None)


def make_mesh(sizes: Mapping[str, int], devices: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
    """An Explicit mesh with `sizes[axis]` devices along each of MESH_AXES.

    Several TPU slices follow each other along `data`, so that only the gradient sums over `data` cross the network
    between slices (DCN), once per step. Within a slice, jax maps the axes to the interconnect.

        data 4, fsdp 2 on slices a and b of 4 devices each:    a0 a1    a2 a3    b0 b1    b2 b3
                                                       data      0        1        2        3

    Raises:
      ValueError: an axis is missing, unknown or below 1, the product is not the number of devices, or `data` is not a
        multiple of the number of slices.
    """
    check_axes(sizes)
    devices = jax.devices() if devices is None else devices
    shape = tuple(sizes[axis] for axis in MESH_AXES)
    if min(shape) < 1:
        raise ValueError(f"mesh {dict(sizes)}: every size must be at least 1")
    if math.prod(shape) != len(devices):
        raise ValueError(f"mesh {dict(sizes)} needs {math.prod(shape)} devices, but there are {len(devices)}")
    slices = _slices(devices)
    if shape[0] % len(slices):
        raise ValueError(f"mesh {dict(sizes)}: data must be a multiple of the number of slices, {len(slices)}")
    slice_shape = (shape[0] // len(slices), *shape[1:])
    # A mesh axis may take a part of a torus axis: context = 2 in a slice of 4x4x4.
    grids = [mesh_utils.create_device_mesh(slice_shape, one, allow_split_physical_axes=True) for one in slices]
    grid = np.concatenate(grids)
    return jax.sharding.Mesh(grid, MESH_AXES, axis_types=(AxisType.Explicit,) * len(MESH_AXES))


def check_axes(sizes: Mapping[str, int]) -> None:
    """Raises ValueError unless `sizes` has exactly the MESH_AXES."""
    if set(sizes) != set(MESH_AXES):
        raise ValueError(f"a mesh needs exactly the axes {MESH_AXES}, got {tuple(sizes)}")


def single_device_mesh(device: jax.Device | None = None) -> jax.sharding.Mesh:
    """A 1x1x1x1 mesh, for tracing shapes and structures."""
    return make_mesh(dict.fromkeys(MESH_AXES, 1), [jax.local_devices()[0] if device is None else device])


def _slices(devices: Sequence[jax.Device]) -> list[list[jax.Device]]:
    """Devices grouped by TPU slice (a part of a pod with its own links). Devices other than TPUs form one group.

    jax also numbers the hosts of GPUs as slices; on GPUs the mesh follows the config alone.
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
    """The spec a parameter is stored with. Stacked layers add leading dimensions that `axes` does not name."""
    axes = ("layers",) * (ndim - len(axes)) + tuple(axes)
    spec = [PARAMETER_RULES[axis] for axis in axes]
    used = [a for a in spec if a is not None]
    if len(used) != len(set(used)):
        raise ValueError(f"logical axes {axes} claim a mesh axis twice: {spec}")
    return P(*spec)


def gathered(axes: Sequence[str]) -> P:
    """The spec a parameter is used with inside a layer: as stored, but gathered over fsdp."""
    return P(*(None if PARAMETER_RULES[a] == FSDP else PARAMETER_RULES[a] for a in axes))


def check_divides(dims: Mapping[str, tuple], mesh: jax.sharding.Mesh | jax.sharding.AbstractMesh) -> None:
    """Raises ValueError for the first dimension that its mesh axes do not divide. `dims`: {what: (size, mesh axes)}."""
    for name, (size, axis) in dims.items():
        shards = math.prod(mesh.shape[a] for a in ((axis,) if isinstance(axis, str) else axis))
        if size % shards:
            raise ValueError(f"{name} = {size} cannot be divided into {shards} shards over mesh axis {axis}")


def local_rows(batch: int, mesh: jax.sharding.Mesh) -> list[int]:
    """Indices of the rows of a global batch that this process's devices hold."""
    held = NamedSharding(mesh, B).addressable_devices_indices_map((batch,)).values()
    return sorted({row for (rows,) in held for row in range(*rows.indices(batch))})


def row_sharers(batch: int, mesh: jax.sharding.Mesh) -> list[int]:
    """Indices of the processes that hold at least one row that this process also holds, itself included."""
    rows = set(local_rows(batch, mesh))
    held = NamedSharding(mesh, B).devices_indices_map((batch,)).items()
    return sorted({device.process_index for device, (part,) in held if rows & set(range(*part.indices(batch)))})


def row_spec(ndim: int) -> P:
    """The spec of a batch's array [B, ...]: rows over ROWS, dimension 1 over `context`."""
    return P(ROWS, CONTEXT, *(None,) * (ndim - 2))


def put_rows(arrays: Mapping[str, jax.typing.ArrayLike], mesh: jax.sharding.Mesh) -> dict[str, jax.Array]:
    """Local rows [B_local, ...] of this process -> global arrays, sharded as `row_spec`.

    Each array holds whole rows, even if `context` spans several processes.
    """
    row_shards = math.prod(mesh.shape[axis] for axis in ROWS)
    times = row_shards // len(local_rows(row_shards, mesh))  # global batch / local batch
    out = {}
    for name, x in arrays.items():
        spec = NamedSharding(mesh, row_spec(x.ndim))
        out[name] = jax.make_array_from_process_local_data(spec, x, (x.shape[0] * times, *x.shape[1:]))
    return out
