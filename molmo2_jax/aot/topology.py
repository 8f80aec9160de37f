"""TPU slices as ahead-of-time targets: `v5p:4x4x4` -> 64 devices to compile for, `2xv5p:4x4x4` -> 128.

The compiler is in the `libtpu` package of the `aot` extra and runs on any x86 Linux host. When it is loaded, it queries
a cloud's metadata server for TPUs; the environment variables set here prevent that.
"""

import importlib.util
import os
import re
from collections.abc import Sequence

import jax
from jax.experimental import topologies

from data_pipelines.config import ConfigError
from molmo2_jax.aot.chips import CHIPS

# TPU_SKIP_MDS_QUERY: no metadata server; host and slice below are arbitrary, since the topology has its own.
# ALLOW_MULTIPLE_LIBTPU_LOAD: several processes may compile at once.
ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5p-8",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


def devices(topology: str) -> Sequence[jax.Device]:
    """The devices of "2xv5p:4x4x4": number of slices (none for one), generation, chips along each torus axis.

    Raises:
      ConfigError: libtpu is not installed, or it has no such slice.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise ConfigError("--topology: compiling for TPUs needs the libtpu package: pip install 'molmo2_jax[aot]'")
    known = [chip.name for chip in CHIPS]
    match = re.fullmatch(rf"(?:(\d+)x)?({'|'.join(known)}):(\S+)", topology)
    if match is None:
        raise ConfigError(
            f"--topology={topology}: expected GENERATION:SIZE, such as v5p:4x4x4, with a generation of {known}"
        )
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    slices, name, size = match.groups()
    options = {"chip_config_name": "megacore"} if name == "v4" else {}  # v5p is megacore by itself
    if slices is not None:
        options["num_slices"] = int(slices)
    name = {"7x": "tpu7x"}.get(name, name)
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=f"{name}:{size}", **options).devices
    except jax.errors.JaxRuntimeError as error:
        raise ConfigError(f"--topology={topology}: {str(error).splitlines()[0]}") from error
