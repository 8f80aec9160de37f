"""What importing the packages brings with it: nothing heavy for molmo2_jax, no JAX and no device for data_pipelines."""

import os
import subprocess
import sys

from tests.code_rules import module_name, sources
from tests.test_architecture import ROOT

BUILDERS = {
    "data_pipelines.datasets.core.prepare",
    "data_pipelines.datasets.core.tfds_builder",
    "data_pipelines.__main__",
}


def data_modules() -> list[str]:
    """Every module of data_pipelines except those that need tensorflow, and the command."""
    names = [module_name(path) for path, _, _ in sources(ROOT, "data_pipelines")]
    return [name for name in names if name not in BUILDERS]


def run_python(code: str, **environment: str) -> str:
    """What `code` prints in a Python of its own, which has imported nothing of ours."""
    env = {**os.environ, **environment}
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


HEAVY = ("jax", "jaxlib", "flax", "optax", "orbax", "tensorflow", "torch")


def test_importing_the_package_imports_neither_jax_nor_tensorflow():
    light = ["molmo2_jax", "molmo2_jax.cli.main", "data_pipelines.packing.schema", "data_pipelines.text.tokenizer"]
    code = f"import sys, {', '.join(light)}\nprint([m for m in {HEAVY} if m in sys.modules])"
    assert run_python(code) == "[]"
    assert run_python(code.replace("import sys", "import jax, sys")) == "['jax', 'jaxlib']"


def test_importing_the_package_loads_next_to_nothing():
    # Under 0.1 s on any machine: only modules of the standard library come with it, and few of them.
    code = "import sys\nbefore = set(sys.modules)\nimport molmo2_jax\n"
    code += "new = {m.split('.')[0] for m in set(sys.modules) - before} - set(sys.stdlib_module_names)\nprint(new)"
    assert run_python(code) == "{'molmo2_jax'}"


def test_the_names_of_the_api_are_all_there():
    code = "import molmo2_jax as m2\nprint([name for name in m2.__all__ if not callable(getattr(m2, name))])"
    assert run_python(code) == "[]"
    after = "import molmo2_jax.train.loop as loop, molmo2_jax as m2\nprint(callable(m2.train), m2.train.loop is loop)"
    assert run_python(after) == "True True"
    missing = "import molmo2_jax\ntry: molmo2_jax.nothing\nexcept AttributeError as e: print(e)"
    assert "has no attribute 'nothing'" in run_python(missing)


def test_data_pipelines_needs_no_jax():
    # grain imports jax where there is one, so that its presence proves nothing: here there is none.
    hide = f"import sys\nfor m in {HEAVY}: sys.modules[m] = None\n"
    assert run_python(f"{hide}import {', '.join(data_modules())}\nprint('imported')") == "imported"
    assert "imported" in run_python(f"{hide}try: import jax\nexcept ImportError: print('imported nothing')")


def test_data_pipelines_starts_no_device():
    # Data workers are processes of their own and may not touch a TPU: with this platform, touching one raises.
    code = f"import {', '.join(data_modules())}\nprint('imported')"
    assert run_python(code, JAX_PLATFORMS="no_such_platform") == "imported"
    touch = "import jax\ntry: jax.devices()\nexcept RuntimeError: print('raised')"
    assert run_python(touch, JAX_PLATFORMS="no_such_platform") == "raised"
