"""The checkout keeps every rule of code_rules.py, and a small tree written to break one rule is named by that rule."""

import ast
import pathlib
from collections.abc import Callable

import pytest

from tests.code_rules import (
    CONFIG_ENTRIES,
    PACKAGES,
    PARTS,
    RULES,
    cycle_rule,
    default_rule,
    experiment_rule,
    layer_rule,
    length_rule,
    package_rule,
    proportion_rule,
    refused_rule,
    sources,
    suppression_rule,
    whole_config_rule,
)

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_checkout_keeps_the_rule(rule: Callable):
    assert rule(ROOT) == []


def test_every_part_and_every_entry_exists():
    assert [
        p for p in PARTS if not any((ROOT / p.replace(".", "/")).with_suffix(s).exists() for s in ("", ".py"))
    ] == []
    functions = {
        f"{path}:{node.name}"
        for path, tree, _ in sources(ROOT, *PACKAGES)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    }
    assert CONFIG_ENTRIES - functions == set()


BROKEN = [  # rule, a tree that breaks it, what it must say
    (
        layer_rule,
        {"data_pipelines/records/a.py": "import jax.numpy as jnp"},
        "data_pipelines.records may not import jax",
    ),
    (layer_rule, {"data_pipelines/text/a.py": "def f():\n    from flax import nnx"}, "may not import flax"),
    (layer_rule, {"data_pipelines/loading/a.py": "import tensorflow"}, "may not import tensorflow"),
    (layer_rule, {"data_pipelines/loading/a.py": "from molmo2_jax.train import step"}, "imports molmo2_jax.train.step"),
    (layer_rule, {"data_pipelines/media/a.py": "import data_pipelines.records.read"}, "imports data_pipelines.records"),
    (layer_rule, {"data_pipelines/media/crops.py": "from PIL import Image"}, "may not import PIL"),
    (layer_rule, {"data_pipelines/media/crops.py": "import data_pipelines.media.image"}, "data_pipelines.media.image"),
    (layer_rule, {"data_pipelines/__init__.py": "import numpy"}, "the package itself imports nothing"),
    (layer_rule, {"molmo2_jax/ops/a.py": "import flax"}, "molmo2_jax.ops may not import flax"),
    (layer_rule, {"molmo2_jax/models/a.py": "import optax"}, "molmo2_jax.models may not import optax"),
    (layer_rule, {"molmo2_jax/train/a.py": "from absl import flags"}, "molmo2_jax.train may not import absl"),
    (layer_rule, {"molmo2_jax/generate/a.py": "from molmo2_jax.train import config"}, "of molmo2_jax.train"),
    (layer_rule, {"molmo2_jax/weights/a.py": "import molmo2_jax.generate.load"}, "of molmo2_jax.generate"),
    (layer_rule, {"molmo2_jax/ops/a.py": "from molmo2_jax import models"}, "molmo2_jax.ops imports molmo2_jax.models"),
    (layer_rule, {"molmo2_jax/weights/hf/remote/a.py": "import jax"}, "may not import jax"),
    (
        layer_rule,
        {"molmo2_jax/weights/hf/remote/a.py": "import data_pipelines.errors"},
        "imports data_pipelines.errors",
    ),
    (layer_rule, {"molmo2_jax/models/a.py": "from .llm import f"}, "relative import"),
    (layer_rule, {"molmo2_jax/misc.py": ""}, "belongs to no part"),
    (
        cycle_rule,
        {"molmo2_jax/ops/a.py": "import molmo2_jax.ops.b", "molmo2_jax/ops/b.py": "from molmo2_jax.ops import a"},
        "molmo2_jax/ops/a.py: imports itself",
    ),
    (experiment_rule, {"experiments/a.py": "import optax"}, "may not import optax"),
    (experiment_rule, {"experiments/a.py": "from molmo2_jax import train"}, "may not import molmo2_jax.train"),
    (whole_config_rule, {"molmo2_jax/aot/a.py": "def f(c: TrainConfig): pass"}, "f takes the whole config"),
    (whole_config_rule, {"data_pipelines/packing/a.py": "def f(*, x: DataConfig): pass"}, "f takes the whole config"),
    (whole_config_rule, {"molmo2_jax/train/a.py": "def f(cfg): pass"}, "f takes cfg without its type"),
    (default_rule, {"molmo2_jax/train/a.py": "x = config.optim.get('lr', 1)"}, "config.optim.get"),
    (default_rule, {"molmo2_jax/train/a.py": "x = self.cfg.get('lr')"}, "self.cfg.get"),
    (refused_rule, {"molmo2_jax/train/a.py": "try:\n    f()\nexcept Exception:\n    pass"}, "a.py:3: broad except"),
    (refused_rule, {"molmo2_jax/train/a.py": "try:\n    f()\nexcept:\n    pass"}, "broad except"),
    (refused_rule, {"molmo2_jax/train/utils.py": ""}, "name the file after its idea"),
    (refused_rule, {"molmo2_jax/models/a.py": "spec = jax.P(('data', 'fsdp'), None)"}, "a.py:1: a mesh axis by name"),
    (refused_rule, {"benchmarks/a.py": "sys.path.insert(0, 'experiments')"}, "changes sys.path"),
    (suppression_rule, {"tests/a.py": "import x  # no" + "qa: F401"}, "tests/a.py:1: a suppressed lint message"),
    (length_rule, {"molmo2_jax/ops/a.py": "x = 1\n" * 401}, "401 lines, more than 400"),
    (length_rule, {"molmo2_jax/ops/a.py": "from jax.experimental import pallas\n" * 701}, "more than 700"),
    (length_rule, {"tests/a.py": "def f():\n" + "    x = 1\n" * 60}, "f has 61 lines"),
    (package_rule, {"molmo2_jax/ops/__init__.py": '"""Ops."""'}, "has 1 lines, not three to ten"),
    (proportion_rule, {"molmo2_jax/ops/a.py": "x = 1\n" * 3, "tests/a.py": "y = 1\n\n\n" * 2}, "2 lines for 3"),
]

KEPT = [  # trees at the edge of a rule, on the right side
    {"data_pipelines/loading/a.py": "import numpy as np\nimport grain\nfrom data_pipelines.text import tokenizer"},
    {"data_pipelines/datasets/a.py": "import tensorflow_datasets as tfds\nfrom data_pipelines.records.read import x"},
    {"molmo2_jax/models/a.py": "spec = P(sharding.ROWS, None)", "molmo2_jax/sharding.py": "ROWS = P('data')"},
    {"molmo2_jax/cli/a.py": "def main():\n    from molmo2_jax.train import loop"},
    {"molmo2_jax/train/setup.py": "def set_up(c: TrainConfig): pass"},
    {"molmo2_jax/ops/a.py": "def f(c: RunConfig): pass"},
    {"experiments/a.py": "import ml_collections\nfrom experiments import _base"},
    {"molmo2_jax/train/a.py": "try:\n    f()\nexcept Exception:\n    close()\n    raise\nx = row.get('tokens')"},
    {"molmo2_jax/ops/a.py": "from jax.experimental import pallas\n" * 700},
    {"molmo2_jax/ops/__init__.py": '"""Ops.\n\nStart here.\n"""'},
    {"tests/a.py": "def f():\n" + "    x = 1\n" * 59},
]


def plant(root: pathlib.Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


@pytest.mark.parametrize(("rule", "files", "expected"), BROKEN, ids=lambda v: getattr(v, "__name__", None))
def test_a_tree_that_breaks_a_rule_is_named(tmp_path, rule, files, expected):
    plant(tmp_path, files)
    problems = rule(tmp_path)
    assert any(expected in problem for problem in problems), problems
    assert all(problem.startswith((*files, "tests:")) for problem in problems)


@pytest.mark.parametrize("files", KEPT, ids=lambda files: next(iter(files)))
def test_a_tree_at_the_edge_of_a_rule_passes(tmp_path, files):
    plant(tmp_path, files)
    assert [problem for rule in RULES if rule is not proportion_rule for problem in rule(tmp_path)] == []
