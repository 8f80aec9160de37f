"""The floors of the house, its import rules and the budgets that keep it readable, read from the sources with ast.

    5  cli, tools/                        everything below
    4  train/  generate/  eval/           floors 0-3 + optax, orbax, grain
    3  hf/                                floors 0-2 + safetensors
    2  models/                            floors 0-1 + flax
    1  sharding.py  ops/                  jax
    0  text/  data/  eval/metrics/        numpy, grain, av, pillow, tokenizers: no jax, no flax, no tensorflow
   -1  hf/remote/                         what an export takes along: nothing of this package; torch, transformers
   -2  data/views.py                      the same: numpy alone

Every rule is a function from a checkout to a list of complaints. The checkout at hand gives none; a small tree written
to break one rule gives that rule's.
"""

import ast
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = "molmo2_jax"

# Part of the package -> floor; the longest matching part wins. The package's own __init__ imports nothing.
FLOORS = {
    "data.views": -2,
    "hf.remote": -1,
    "text": 0,
    "data": 0,
    "eval.metrics": 0,
    "sharding": 1,
    "ops": 1,
    "models": 2,
    "hf": 3,
    "train": 4,
    "generate": 4,
    "eval": 4,
    "cli": 5,
    "tools": 5,
}
LIBRARIES = {
    -2: {"numpy"},
    -1: {"numpy", "PIL", "torch", "transformers"},
    0: {"numpy", "grain", "array_record", "av", "fsspec", "PIL", "tokenizers"},
    1: {"numpy", "jax"},
    2: {"numpy", "jax", "flax"},
    3: {
        "numpy",
        "jax",
        "flax",
        "safetensors",
        "einops",
        "fsspec",
        "huggingface_hub",
        "ml_dtypes",
        "gguf",
        "tokenizers",
        "tqdm",
    },
    4: {"numpy", "jax", "flax", "safetensors", "optax", "orbax", "tensorstore", "grain", "tensorboardX", "tqdm"},
}
LIBRARIES[5] = set.union(*LIBRARIES.values()) | {"absl", "ml_collections"}
PIPELINE_LIBRARIES = {"array_record", "huggingface_hub", "numpy", "pyarrow", "tensorflow_datasets", "tqdm"}

FILE_LINES = 400
KERNEL_LINES = 700  # a file that imports Pallas
FUNCTION_LINES = 70
LONG_FUNCTIONS: set[str] = set()  # "path:name", each with the reason beside it


def sources(root: pathlib.Path, *folders: str) -> Iterator[tuple[str, ast.Module, str]]:
    """(path relative to `root`, syntax tree, text) of every Python file in `folders`."""
    for folder in folders:
        for path in sorted((root / folder).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            yield path.relative_to(root).as_posix(), ast.parse(text, str(path)), text


def module_name(path: str) -> str:
    """ "molmo2_jax/ops/mask.py" -> "molmo2_jax.ops.mask", "molmo2_jax/ops/__init__.py" -> "molmo2_jax.ops"."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imports(tree: ast.Module) -> list[str]:
    """Every module a file imports, at any depth. `from a import b` gives "a.b": b may be a module; "." if relative."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += ["." if node.level else f"{node.module}.{alias.name}" for alias in node.names]
    return found


def part(module: str) -> str | None:
    """The part of `FLOORS` a module of the package belongs to: "molmo2_jax.eval.metrics.hota" -> "eval.metrics"."""
    names = module.split(".")[1:]
    for n in range(len(names), 0, -1):
        if ".".join(names[:n]) in FLOORS:
            return ".".join(names[:n])
    return None


def floor_rule(root: pathlib.Path) -> list[str]:
    """A module has a floor and imports only from its own or lower ones, and only the libraries of its floor."""
    complaints = []
    for path, tree, _ in sources(root, PACKAGE):
        own = part(module_name(path))
        if own is None and module_name(path) != PACKAGE:
            complaints.append(f"{path}: stands on no floor; add its folder to FLOORS")
            continue
        floor, allowed = (-3, set()) if own is None else (FLOORS[own], LIBRARIES[FLOORS[own]])
        for name in imports(tree):
            top = name.split(".")[0]
            if name == ".":
                if own != "hf.remote":  # whose files lie beside each other in an export
                    complaints.append(f"{path}: relative import; write the whole name")
            elif top == PACKAGE:
                target = part(name)
                if target is not None and FLOORS[target] > floor:
                    complaints.append(f"{path}: floor {floor} imports {name} of floor {FLOORS[target]}")
            elif top not in sys.stdlib_module_names and top not in allowed:
                complaints.append(f"{path}: floor {floor} may not import {top}")
    return complaints


def cycle_rule(root: pathlib.Path) -> list[str]:
    """The parts of the package form no import cycle, also within a floor."""
    edges: dict[str, set[str]] = {}
    for path, tree, _ in sources(root, PACKAGE):
        if own := part(module_name(path)):
            targets = {part(name) for name in imports(tree) if name.split(".")[0] == PACKAGE}
            edges.setdefault(own, set()).update(targets - {own, None})

    def reachable(start: str) -> set[str]:
        seen, todo = set(), [start]
        while todo:
            new = edges.get(todo.pop(), set()) - seen
            seen |= new
            todo += new
        return seen

    return [
        f"{PACKAGE}/{name}: imports itself through other parts" for name in sorted(edges) if name in reachable(name)
    ]


def experiment_rule(root: pathlib.Path) -> list[str]:
    """A config can be read with nothing but ml_collections, what experiments share and the stage before it."""
    shared = ("_base", "_mixtures", "stage2_sft")
    own = (*shared, *(f"experiments.{name}" for name in shared))
    return [
        f"{path}: an experiment may not import {name}"
        for path, tree, _ in sources(root, "experiments")
        for name in imports(tree)
        if name.split(".")[0] not in sys.stdlib_module_names | {"ml_collections"}
        and not any(name == base or name.startswith(f"{base}.") for base in own)
    ]


def pipeline_rule(root: pathlib.Path) -> list[str]:
    """Whoever builds datasets needs floor 0 of the package and TFDS: no jax, no tensorflow."""
    complaints = []
    for path, tree, _ in sources(root, "data_pipelines"):
        for name in imports(tree):
            top = name.split(".")[0]
            if top == PACKAGE and FLOORS.get(part(name)) != 0:
                complaints.append(f"{path}: a pipeline imports {name}, which is not of floor 0")
            elif top not in sys.stdlib_module_names | PIPELINE_LIBRARIES | {PACKAGE, "data_pipelines"}:
                complaints.append(f"{path}: a pipeline may not import {top}")
    return complaints


def default_rule(root: pathlib.Path) -> list[str]:
    """No `config.get(key, default)`: every key is spelled out and a missing one raises."""
    complaints = []
    for path, tree, _ in sources(root, PACKAGE, "experiments", "benchmarks"):
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
                receiver = ast.unparse(node.func.value)
                if re.fullmatch(r"(\w+\.)*(config|cfg|c)(\.\w+)*", receiver.lower()):
                    complaints.append(f"{path}:{node.lineno}: {receiver}.get: spell the key out in the config")
    return complaints


def refused_rule(root: pathlib.Path) -> list[str]:
    """What the house refuses: broad excepts, utils.py, the mesh's axis names outside sharding.py."""
    complaints = []
    for path, tree, _ in sources(root, PACKAGE, "experiments"):
        if path.endswith(("/utils.py", "/util.py", "/helpers.py")):
            complaints.append(f"{path}: name the idea, not the heap")
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler):
                caught = "" if node.type is None else ast.unparse(node.type)
                reraises = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
                if not reraises and any(name in ("", "Exception", "BaseException") for name in caught.split(", ")):
                    complaints.append(f"{path}:{node.lineno}: broad except; name what can be handled")
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("P", "PartitionSpec"):
                literal = any(isinstance(a, ast.Constant) and isinstance(a.value, str) for a in ast.walk(node))
                if literal and path != f"{PACKAGE}/sharding.py":
                    complaints.append(f"{path}:{node.lineno}: a mesh axis by name; give the layout one in sharding.py")
    return complaints


def length_rule(root: pathlib.Path) -> list[str]:
    """Files within 400 lines (700 with Pallas in them), functions within 70; a config function may be a long text."""
    complaints = []
    for path, tree, text in sources(root, PACKAGE, "experiments", "data_pipelines", "benchmarks", "tests"):
        limit = KERNEL_LINES if any("pallas" in name for name in imports(tree)) else FILE_LINES
        if (lines := len(text.splitlines())) > limit:
            complaints.append(f"{path}: {lines} lines, more than {limit}; split it by idea")
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not path.startswith("experiments/"):
                lines = node.end_lineno - node.lineno + 1
                if lines > FUNCTION_LINES and f"{path}:{node.name}" not in LONG_FUNCTIONS:
                    complaints.append(f"{path}: {node.name} has {lines} lines, more than {FUNCTION_LINES}")
    return complaints


def proportion_rule(root: pathlib.Path) -> list[str]:
    """Tests are at least half as long as the source."""
    source, tests = (
        sum(1 for _, _, text in sources(root, folder) for line in text.splitlines() if line.strip())
        for folder in (PACKAGE, "tests")
    )
    return [f"tests: {tests} lines for {source} of {PACKAGE}/, less than half"] if 2 * tests < source else []


RULES = (
    floor_rule,
    cycle_rule,
    experiment_rule,
    pipeline_rule,
    default_rule,
    refused_rule,
    length_rule,
    proportion_rule,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_checkout_keeps_the_rule(rule: Callable):
    assert rule(ROOT) == []


BROKEN = [  # rule, a tree that breaks it, what it must say
    (floor_rule, {"molmo2_jax/data/a.py": "import jax.numpy as jnp"}, "floor 0 may not import jax"),
    (floor_rule, {"molmo2_jax/text/a.py": "def f():\n    from flax import nnx"}, "floor 0 may not import flax"),
    (floor_rule, {"molmo2_jax/eval/metrics/a.py": "import tensorflow"}, "floor 0 may not import tensorflow"),
    (floor_rule, {"molmo2_jax/ops/a.py": "import flax"}, "floor 1 may not import flax"),
    (floor_rule, {"molmo2_jax/models/a.py": "import optax"}, "floor 2 may not import optax"),
    (floor_rule, {"molmo2_jax/train/a.py": "from absl import flags"}, "floor 4 may not import absl"),
    (floor_rule, {"molmo2_jax/tools/a.py": "import seqio"}, "floor 5 may not import seqio"),
    (floor_rule, {"molmo2_jax/tools/a.py": "import data_pipelines"}, "floor 5 may not import data_pipelines"),
    (floor_rule, {"molmo2_jax/__init__.py": "import numpy"}, "floor -3 may not import numpy"),
    (floor_rule, {"molmo2_jax/__init__.py": "from molmo2_jax import text"}, "floor -3 imports molmo2_jax.text"),
    (floor_rule, {"molmo2_jax/data/views.py": "from PIL import Image"}, "floor -2 may not import PIL"),
    (floor_rule, {"molmo2_jax/data/views.py": "import molmo2_jax.data.failure"}, "imports molmo2_jax.data.failure"),
    (
        floor_rule,
        {"molmo2_jax/hf/remote/a.py": "import jax"},
        "floor -1 may not import jax",
    ),
    (floor_rule, {"molmo2_jax/hf/remote/a.py": "import molmo2_jax.data.image"}, "imports molmo2_jax.data.image"),
    (floor_rule, {"molmo2_jax/data/a.py": "from molmo2_jax.ops import mask"}, "floor 0 imports molmo2_jax.ops.mask"),
    (floor_rule, {"molmo2_jax/ops/a.py": "from molmo2_jax import models"}, "floor 1 imports molmo2_jax.models"),
    (floor_rule, {"molmo2_jax/eval/metrics/a.py": "import molmo2_jax.eval.runner"}, "imports molmo2_jax.eval.runner"),
    (floor_rule, {"molmo2_jax/models/a.py": "from .llm import f"}, "relative import"),
    (floor_rule, {"molmo2_jax/misc.py": ""}, "stands on no floor"),
    (
        cycle_rule,
        {"molmo2_jax/text/a.py": "import molmo2_jax.data.b", "molmo2_jax/data/b.py": "from molmo2_jax import text"},
        "molmo2_jax/text: imports itself",
    ),
    (experiment_rule, {"experiments/a.py": "import optax"}, "may not import optax"),
    (experiment_rule, {"experiments/a.py": "from molmo2_jax import data"}, "may not import molmo2_jax.data"),
    (experiment_rule, {"experiments/a.py": "from experiments import b"}, "may not import experiments.b"),
    (pipeline_rule, {"data_pipelines/a.py": "import tensorflow as tf"}, "a pipeline may not import tensorflow"),
    (pipeline_rule, {"data_pipelines/a.py": "from molmo2_jax.train import step"}, "imports molmo2_jax.train.step"),
    (pipeline_rule, {"data_pipelines/a.py": "from . import entry"}, "a pipeline may not import"),
    (default_rule, {"molmo2_jax/train/a.py": "x = config.optim.get('lr', 1)"}, "config.optim.get"),
    (default_rule, {"molmo2_jax/train/a.py": "x = self.cfg.get('lr')"}, "self.cfg.get"),
    (refused_rule, {"molmo2_jax/train/a.py": "try:\n    f()\nexcept Exception:\n    pass"}, "a.py:3: broad except"),
    (refused_rule, {"molmo2_jax/train/a.py": "try:\n    f()\nexcept:\n    pass"}, "broad except"),
    (refused_rule, {"molmo2_jax/train/utils.py": ""}, "name the idea"),
    (refused_rule, {"molmo2_jax/models/a.py": "spec = jax.P(('data', 'fsdp'), None)"}, "a.py:1: a mesh axis by name"),
    (length_rule, {"molmo2_jax/ops/a.py": "x = 1\n" * 401}, "401 lines, more than 400"),
    (length_rule, {"molmo2_jax/ops/a.py": "from jax.experimental import pallas\n" * 701}, "more than 700"),
    (length_rule, {"tests/a.py": "def f():\n" + "    x = 1\n" * 70}, "f has 71 lines"),
    (proportion_rule, {"molmo2_jax/ops/a.py": "x = 1\n" * 5, "tests/a.py": "y = 1\n\n\n" * 2}, "2 lines for 5"),
]

KEPT = [  # trees at the edge of a rule, on the right side
    {"molmo2_jax/data/a.py": "import numpy as np\nimport av\nfrom molmo2_jax.text import tokenizer"},
    {"molmo2_jax/eval/runner.py": "from molmo2_jax.eval.metrics import counting\nimport orbax.checkpoint"},
    {"data_pipelines/a.py": "import tensorflow_datasets as tfds\nfrom molmo2_jax.data.record import read_record"},
    {"molmo2_jax/models/a.py": "spec = P(sharding.ROWS, None)", "molmo2_jax/sharding.py": "ROWS = P('data')"},
    {"molmo2_jax/cli.py": "def main():\n    from molmo2_jax.train import loop"},
    {"experiments/a.py": "import ml_collections\nfrom experiments import _base\nfrom _base import x"},
    {"molmo2_jax/train/a.py": "try:\n    f()\nexcept Exception:\n    close()\n    raise\nx = row.get('tokens')"},
    {"molmo2_jax/ops/a.py": "from jax.experimental import pallas\n" * 700},
    {"tests/a.py": "def f():\n" + "    x = 1\n" * 69},
]


def plant(root: pathlib.Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


@pytest.mark.parametrize(("rule", "files", "expected"), BROKEN, ids=lambda v: getattr(v, "__name__", None))
def test_a_tree_that_breaks_a_rule_is_named(tmp_path, rule, files, expected):
    plant(tmp_path, files)
    complaints = rule(tmp_path)
    assert any(expected in complaint for complaint in complaints), complaints
    assert all(complaint.startswith((*files, "tests:", "molmo2_jax/")) for complaint in complaints)


@pytest.mark.parametrize("files", KEPT, ids=lambda files: next(iter(files)))
def test_a_tree_at_the_edge_of_a_rule_passes(tmp_path, files):
    plant(tmp_path, files)
    assert [complaint for rule in RULES if rule is not proportion_rule for complaint in rule(tmp_path)] == []


def modules_of_floor(floor: int) -> list[str]:
    names = [module_name(path) for path, _, _ in sources(ROOT, PACKAGE)]
    return [name for name in names if part(name) and FLOORS[part(name)] == floor]


def run_python(code: str, **environment: str) -> str:
    """What `code` prints in a Python of its own, which has imported nothing of ours."""
    env = {**os.environ, **environment}
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


HEAVY = ("jax", "jaxlib", "flax", "optax", "orbax", "tensorflow", "torch")


def test_importing_the_package_imports_neither_jax_nor_tensorflow():
    light = [PACKAGE, f"{PACKAGE}.data.schema"] + [name for name in modules_of_floor(0) if part(name) == "text"]
    light += [name for name in (f"{PACKAGE}.cli",) if (ROOT / f"{name.replace('.', '/')}.py").exists()]
    code = f"import sys, {', '.join(light)}\nprint([m for m in {HEAVY} if m in sys.modules])"
    assert run_python(code) == "[]"
    assert run_python(code.replace("import sys", "import jax, sys")) == "['jax', 'jaxlib']"


def test_floor_0_needs_no_jax():
    # grain imports jax where there is one, so that its presence proves nothing: here there is none.
    hide = f"import sys\nfor m in {HEAVY}: sys.modules[m] = None\n"
    assert run_python(f"{hide}import {', '.join(modules_of_floor(0))}\nprint('imported')") == "imported"
    assert "imported" in run_python(f"{hide}try: import jax\nexcept ImportError: print('imported nothing')")


def test_floor_0_starts_no_device():
    # Data workers are processes of their own and may not touch a TPU: with this platform, touching one raises.
    code = f"import {', '.join(modules_of_floor(0))}\nprint('imported')"
    assert run_python(code, JAX_PLATFORMS="no_such_platform") == "imported"
    touch = "import jax\ntry: jax.devices()\nexcept RuntimeError: print('raised')"
    assert run_python(touch, JAX_PLATFORMS="no_such_platform") == "raised"
