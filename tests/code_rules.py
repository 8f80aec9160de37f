"""Rules on the code itself: the import order of the packages, and the limits that keep the code readable.

Every rule is a function from a checkout to a list of problems, read from the sources with ast.
"""

import ast
import pathlib
import re
import sys
from collections.abc import Iterator

# Part of the code -> its layer. A module imports only from its own part and from parts of lower layers; the longest
# matching name counts.
PARTS = (
    "data_pipelines.errors",
    "data_pipelines.config",
    "data_pipelines.text",
    "data_pipelines.media.crops",  # an export takes these three files along: numpy alone
    "data_pipelines.media.pooling",
    "data_pipelines.media.token_counts",
    "data_pipelines.media",
    "data_pipelines.records",
    "data_pipelines.prompts",
    "data_pipelines.sequence",
    "data_pipelines.packing",
    "data_pipelines.loading",
    "data_pipelines.datasets",
    "data_pipelines.__main__",
    "molmo2_jax.weights.hf.remote",  # an export takes these files along: nothing of this project
    "molmo2_jax.sharding",
    "molmo2_jax.ops",
    "molmo2_jax.models",
    "molmo2_jax.weights",
    "molmo2_jax.generate",
    "molmo2_jax.train",
    "molmo2_jax.viewer",
    "molmo2_jax.aot",
    "molmo2_jax.api",
    "molmo2_jax.cli",
)
LAYER = {part: number for number, part in enumerate(PARTS)}
_DATA = {"numpy", "av", "PIL", "fsspec", "array_record", "tokenizers"}
_JAX = {"numpy", "jax"}
_WEIGHTS = _JAX | {"flax", "orbax", "tensorstore", "safetensors", "einops", "fsspec", "huggingface_hub", "ml_dtypes"}
_WEIGHTS |= {"gguf", "tokenizers", "tqdm"}
_RUN = _WEIGHTS | {"optax", "grain", "tensorboardX", "PIL", "ml_collections"}
LIBRARIES = {  # what each part imports beyond the standard library and lower parts
    "data_pipelines.errors": set(),
    "data_pipelines.config": set(),
    "data_pipelines.text": {"numpy", "tokenizers"},
    "data_pipelines.media.crops": {"numpy"},
    "data_pipelines.media.pooling": {"numpy"},
    "data_pipelines.media.token_counts": set(),
    "data_pipelines.media": _DATA,
    "data_pipelines.records": {"numpy"},
    "data_pipelines.prompts": {"numpy"},
    "data_pipelines.sequence": {"numpy"},
    "data_pipelines.packing": {"numpy"},
    "data_pipelines.loading": {"numpy", "grain"},
    "data_pipelines.datasets": _DATA | {"huggingface_hub", "pyarrow", "tensorflow_datasets", "tqdm"},
    "data_pipelines.__main__": set(),
    "molmo2_jax.weights.hf.remote": {"numpy", "PIL", "torch", "transformers"},
    "molmo2_jax.sharding": _JAX,
    "molmo2_jax.ops": _JAX,
    "molmo2_jax.models": _JAX | {"flax"},
    "molmo2_jax.weights": _WEIGHTS,
    "molmo2_jax.generate": _WEIGHTS | {"PIL"},
    "molmo2_jax.train": _RUN,
    "molmo2_jax.viewer": _RUN,
    "molmo2_jax.aot": _RUN,
    "molmo2_jax.api": _RUN,
    "molmo2_jax.cli": _RUN | {"absl"},
}
PACKAGES = ("data_pipelines", "molmo2_jax")
CODE = (*PACKAGES, "experiments", "scripts", "benchmarks")

FILE_LINES = 400
KERNEL_LINES = 700  # a file that imports Pallas
FUNCTION_LINES = 60
# Functions that take the whole training or data config: where a run, its data, or a saved config begins.
CONFIG_ENTRIES = {
    "data_pipelines/loading/data.py:__init__",
    "molmo2_jax/api.py:show_row",
    "molmo2_jax/cli/train.py:train",
    "molmo2_jax/train/experiment.py:read_experiment",
    "molmo2_jax/train/__init__.py:__call__",
    "molmo2_jax/train/experiment.py:run_experiment",
    "molmo2_jax/train/loop.py:train",
    "molmo2_jax/train/setup.py:check_fits",
    "molmo2_jax/train/setup.py:mesh_test",
    "molmo2_jax/train/setup.py:open_data",
    "molmo2_jax/train/setup.py:set_up",
}


def sources(root: pathlib.Path, *folders: str) -> Iterator[tuple[str, ast.Module, str]]:
    """(path relative to `root`, syntax tree, text) of every Python file in `folders`."""
    for folder in folders:
        for path in sorted((root / folder).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            yield path.relative_to(root).as_posix(), ast.parse(text, str(path)), text


def module_name(path: str) -> str:
    """ "molmo2_jax/ops/loss.py" -> "molmo2_jax.ops.loss", "molmo2_jax/ops/__init__.py" -> "molmo2_jax.ops"."""
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


def part_of(module: str) -> str | None:
    """The longest of PARTS that a module belongs to: "molmo2_jax.weights.hf.files" -> "molmo2_jax.weights"."""
    names = module.split(".")
    for n in range(len(names), 1, -1):
        if ".".join(names[:n]) in LAYER:
            return ".".join(names[:n])
    return None


def layer_rule(root: pathlib.Path) -> list[str]:
    """A module imports its own part, lower parts, and the libraries of its part; nothing imports data_pipelines up."""
    problems = []
    for path, tree, _ in sources(root, *PACKAGES):
        own = part_of(module_name(path))
        if own is None:
            if module_name(path) not in PACKAGES:
                problems.append(f"{path}: belongs to no part; add its folder to PARTS")
            elif path != "molmo2_jax/__init__.py" and imports(tree):
                problems.append(f"{path}: the package itself imports nothing")
            continue
        for name in imports(tree):
            top = name.split(".")[0]
            if name == ".":
                if own != "molmo2_jax.weights.hf.remote":  # whose files are next to each other in an export
                    problems.append(f"{path}: relative import; write the whole name")
            elif top in PACKAGES:
                target = part_of(name)
                forbidden = target is None or LAYER[target] > LAYER[own] or own == "molmo2_jax.weights.hf.remote"
                if forbidden and target != own:
                    problems.append(f"{path}: {own} imports {name} of {target}")
            elif top not in sys.stdlib_module_names and top not in LIBRARIES[own]:
                problems.append(f"{path}: {own} may not import {top}")
    return problems


def cycle_rule(root: pathlib.Path) -> list[str]:
    """Modules form no import cycle, also within a part; imports inside functions count."""
    names = {module_name(path): path for path, _, _ in sources(root, *PACKAGES, "experiments")}
    edges: dict[str, set[str]] = {}
    for path, tree, _ in sources(root, *PACKAGES, "experiments"):
        found = set()
        for name in imports(tree):
            found |= {one for one in (name, name.rpartition(".")[0]) if one in names and not is_package(names[one])}
        edges[module_name(path)] = found - {module_name(path)}

    def reachable(start: str) -> set[str]:
        seen, todo = set(), [start]
        while todo:
            new = edges.get(todo.pop(), set()) - seen
            seen |= new
            todo += new
        return seen

    return [f"{names[name]}: imports itself through other modules" for name in sorted(edges) if name in reachable(name)]


def is_package(path: str) -> bool:
    return path.endswith("/__init__.py")


def experiment_rule(root: pathlib.Path) -> list[str]:
    """A config can be read with nothing but ml_collections and other experiments."""
    return [
        f"{path}: an experiment may not import {name}"
        for path, tree, _ in sources(root, "experiments")
        for name in imports(tree)
        if name.split(".")[0] not in sys.stdlib_module_names | {"ml_collections", "experiments"}
    ]


def whole_config_rule(root: pathlib.Path) -> list[str]:
    """A function takes the small config of its subsystem; the whole one only at the entry points."""
    problems = []
    for path, tree, _ in sources(root, *PACKAGES):
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                kinds = " ".join(ast.unparse(a.annotation) for a in arguments if a.annotation is not None)
                entry = f"{path}:{node.name}" in CONFIG_ENTRIES
                if re.search(r"\b(TrainConfig|DataConfig)\b", kinds) and not entry:
                    problems.append(f"{path}: {node.name} takes the whole config; take the part it needs")
                untyped = [a.arg for a in arguments if a.annotation is None and a.arg in ("c", "cfg", "config")]
                if untyped:
                    problems.append(f"{path}: {node.name} takes {untyped[0]} without its type")
    return problems


def default_rule(root: pathlib.Path) -> list[str]:
    """No `config.get(key, default)`: every key is spelled out and a missing one raises."""
    problems = []
    for path, tree, _ in sources(root, *CODE):
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
                receiver = ast.unparse(node.func.value)
                if re.fullmatch(r"(\w+\.)*(config|cfg|c)(\.\w+)*", receiver.lower()):
                    problems.append(f"{path}:{node.lineno}: {receiver}.get: spell the key out in the config")
    return problems


def refused_rule(root: pathlib.Path) -> list[str]:
    """No broad excepts, no utils.py, no mesh axis names outside sharding.py, no changes of sys.path."""
    problems = []
    for path, tree, _ in sources(root, *CODE):
        if path.endswith(("/utils.py", "/util.py", "/helpers.py")):
            problems.append(f"{path}: name the file after its idea")
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler):
                caught = "" if node.type is None else ast.unparse(node.type)
                reraises = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
                if not reraises and any(name in ("", "Exception", "BaseException") for name in caught.split(", ")):
                    problems.append(f"{path}:{node.lineno}: broad except; name what can be handled")
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                literal = any(isinstance(a, ast.Constant) and isinstance(a.value, str) for a in ast.walk(node))
                if called.split(".")[-1] in ("P", "PartitionSpec") and literal and path != "molmo2_jax/sharding.py":
                    problems.append(f"{path}:{node.lineno}: a mesh axis by name; name the layout in sharding.py")
                if called in ("sys.path.insert", "sys.path.append"):
                    problems.append(f"{path}:{node.lineno}: changes sys.path; import an installed package")
    return problems


def suppression_rule(root: pathlib.Path) -> list[str]:
    """No suppressed lint message anywhere."""
    mark = "# no" + "qa"
    return [
        f"{path}:{number}: a suppressed lint message"
        for path, _, text in sources(root, *CODE, "tests")
        for number, line in enumerate(text.splitlines(), start=1)
        if mark in line
    ]


def length_rule(root: pathlib.Path) -> list[str]:
    """Files within 400 lines (700 with Pallas in them), functions within 60; a config function may be a long text."""
    problems = []
    for path, tree, text in sources(root, *CODE, "tests"):
        limit = KERNEL_LINES if any("pallas" in name for name in imports(tree)) else FILE_LINES
        if (lines := len(text.splitlines())) > limit:
            problems.append(f"{path}: {lines} lines, more than {limit}; split it by idea")
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not path.startswith("experiments/"):
                lines = node.end_lineno - node.lineno + 1
                if lines > FUNCTION_LINES:
                    problems.append(f"{path}: {node.name} has {lines} lines, more than {FUNCTION_LINES}")
    return problems


def package_rule(root: pathlib.Path) -> list[str]:
    """Each package says in three to ten lines what it does and where to start."""
    problems = []
    for path, tree, _ in sources(root, *PACKAGES):
        if is_package(path):
            lines = len((ast.get_docstring(tree) or "").splitlines())
            if not 3 <= lines <= 10 and module_name(path) not in PACKAGES:
                problems.append(f"{path}: its docstring has {lines} lines, not three to ten")
    return problems


def proportion_rule(root: pathlib.Path) -> list[str]:
    """Tests are at least as long as the source."""
    source, tests = (
        sum(1 for _, _, text in sources(root, *folders) for line in text.splitlines() if line.strip())
        for folders in (PACKAGES, ("tests",))
    )
    return [f"tests: {tests} lines for {source} of source"] if tests < source else []


RULES = (
    layer_rule,
    cycle_rule,
    experiment_rule,
    whole_config_rule,
    default_rule,
    refused_rule,
    suppression_rule,
    length_rule,
    package_rule,
    proportion_rule,
)
