"""Describing slices of TPUs that are not there: `v5p:4x4x4` -> 64 devices to compile for, `2xv5p:4x4x4` -> 128.

The compiler comes with the `libtpu` package of the `aot` extra and runs on any x86 Linux host. Where it is loaded it
asks a cloud's metadata server for TPUs; the environment set here keeps it from that.
"""

import importlib.util
import os
import re
from collections.abc import Sequence

import jax
from jax.experimental import topologies

from molmo2_jax.tools.aot.chips import CHIPS
from molmo2_jax.train.config import ConfigError

# TPU_SKIP_MDS_QUERY: no metadata server, which would name host and slice; any will do, the topology says what is meant.
# ALLOW_MULTIPLE_LIBTPU_LOAD: a compilation may run beside another.
ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5p-8",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


def devices(topology: str) -> Sequence[jax.Device]:
    """Devices of slices, "2xv5p:4x4x4": how many (one is not written), the generation, chips along each torus axis.

    Raises:
      ConfigError: libtpu is not installed, or it knows no such slice.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise ConfigError("--topology: compiling for TPUs needs the libtpu package: pip install 'molmo2_jax[aot]'")
    known = [chip.name for chip in CHIPS]
    written = re.fullmatch(rf"(?:(\d+)x)?({'|'.join(known)}):(\S+)", topology)
    if written is None:
        raise ConfigError(f"--topology={topology}: it is GENERATION:SIZE, as v5p:4x4x4; generations are {known}")
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    slices, name, size = written.groups()
    options = {"chip_config_name": "megacore"} if name == "v4" else {}  # v5p is megacore by itself
    if slices is not None:
        options["num_slices"] = int(slices)
    name = {"7x": "tpu7x"}.get(name, name)
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=f"{name}:{size}", **options).devices
    except jax.errors.JaxRuntimeError as error:
        raise ConfigError(f"--topology={topology}: {str(error).splitlines()[0]}") from error
