"""Describing a slice of TPUs that is not there: `v5p:4x4x4` -> 64 devices to compile for.

The compiler comes with the `libtpu` package of the `aot` extra and runs on any x86 Linux host. Where it is loaded it
asks a cloud's metadata server for TPUs; the environment set here keeps it from that.
"""

import importlib.util
import os
from collections.abc import Sequence

import jax
from jax.experimental import topologies

from molmo2_jax.tools.aot.chips import CHIPS
from molmo2_jax.train.config import ConfigError

# TPU_SKIP_MDS_QUERY: no metadata server. ALLOW_MULTIPLE_LIBTPU_LOAD: a compile may run beside another.
ENVIRONMENT = {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}


def devices(topology: str) -> Sequence[jax.Device]:
    """Devices of a slice, "v5p:4x4x4": the generation and its size in chips along each axis of the torus.

    Raises:
      ConfigError: libtpu is not installed, or it knows no such slice.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise ConfigError("--topology: compiling for TPUs needs the libtpu package: pip install 'molmo2_jax[aot]'")
    name, _, size = topology.partition(":")
    known = [chip.name for chip in CHIPS]
    if name not in known or not size:
        raise ConfigError(f"--topology={topology}: it is GENERATION:SIZE, as v5p:4x4x4; generations are {known}")
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    options = {"chip_config_name": "megacore"} if name == "v4" else {}  # v5p is megacore by itself
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=topology, **options).devices
    except jax.errors.JaxRuntimeError as error:
        raise ConfigError(f"--topology={topology}: {str(error).splitlines()[0]}") from error
