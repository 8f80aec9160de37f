"""ES modules of a folder as one script, for a page that loads nothing.

    elements.js   export const div = …;
    page.js       import { div } from "./elements.js";        ->        const div = …;
                  div("totals");                                        div("totals");

Each module comes after those it imports, and all share one scope, so that no two modules may declare the same top-level
name. Only named imports of files in the same folder and `export` before a declaration are understood: no default
exports, no export lists, no renaming.
"""

import dataclasses
import pathlib
import re

IMPORT = re.compile(r'^import \{([^}]*)\} from "\./([\w-]+\.js)";\n', re.MULTILINE)
EXPORT = re.compile(r"^export ((?:const|let|class|function\*?|async function\*?) ([\w$]+))", re.MULTILINE)
MODULE_KEYWORD = re.compile(r"\b(?:import|export)\b[^;]*")
DECLARATION = re.compile(r"\b(?:const|let|var)\b([^;]*)|\b(?:class|function\*?)\s+([\w$]+)")
NAME = re.compile(r"\s*([\w$]+)")

COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
STRING = re.compile(r"""(["'])(?:\\.|(?!\1)[^\\\n])*\1""")
REGEX = re.compile(r"/(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\[\n])+/\w*")
REGEX_AFTER = "(,=:[!&|?{};"  # after any other character, and after `return`, a slash is taken for a division
CLOSING = {")": "(", "]": "[", "}": "{"}
NEWLINE = "\n"
TEMPLATE_TEXT = re.compile(r"(?:\\.|\$(?!\{)|[^`\\$])*", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Module:
    """A module's text without import lines and `export`, and the names that it imports, exports and declares."""

    text: str
    imports: dict[str, list[str]]  # module -> names
    exports: set[str]
    declared: list[str]  # at top level


def bundle(folder: pathlib.Path, entry: str) -> str:
    """The script of module `entry` and of all that it imports, which are files of `folder`.

    Raises:
      ValueError: a name that two modules declare, an import of a name that the module does not export, an import cycle,
        or a statement in a form that is not understood.
      FileNotFoundError: an import of a module that does not exist.
    """
    modules: dict[str, Module] = {}  # in the order of their imports
    _add_module(folder, entry, (), modules)
    declared_in: dict[str, str] = {}
    for name, module in modules.items():
        for other, names in module.imports.items():
            if missing := [one for one in names if one not in modules[other].exports]:
                raise ValueError(f"{name}: {other} does not export {', '.join(missing)}")
        for one in module.declared:
            if declared_in.setdefault(one, name) != name:
                raise ValueError(f"{name}: {declared_in[one]} declares {one}, too; all modules share one scope")
    return "".join(module.text for module in modules.values())


def _add_module(folder: pathlib.Path, name: str, importers: tuple[str, ...], modules: dict[str, Module]) -> None:
    """Adds a module after those that it imports. `importers`: the modules whose imports led here."""
    if name in importers:
        raise ValueError(f"import cycle: {' -> '.join([*importers[importers.index(name) :], name])}")
    if name in modules:
        return
    module = parse_module(name, (folder / name).read_text(encoding="utf-8"))
    for other in module.imports:
        _add_module(folder, other, (*importers, name), modules)
    modules[name] = module


def parse_module(name: str, source: str) -> Module:
    """One module. Raises ValueError for a statement in a form that is not understood."""
    imports: dict[str, list[str]] = {}
    for names, other in IMPORT.findall(source):
        imports.setdefault(other, []).extend(one.strip() for one in names.split(",") if one.strip())
    source = IMPORT.sub("", source)
    text = EXPORT.sub(r"\1", source)
    code = top_level(text)
    if strange := MODULE_KEYWORD.search(code):
        raise ValueError(f"{name}: cannot bundle {strange[0].strip()!r}; see bundle.py for the forms it can")
    return Module(text, imports, {exported for _, exported in EXPORT.findall(source)}, _declared_names(name, code))


def _declared_names(module: str, code: str) -> list[str]:
    """The names that top-level code declares: "const a = , b = ; function f() {}" -> ["a", "b", "f"]."""
    names = []
    for variables, name in DECLARATION.findall(code):
        for declaration in [name] if name else variables.split(","):
            if not (match := NAME.match(declaration)):
                raise ValueError(f"{module}: cannot bundle the pattern {declaration.strip()!r}; name one variable")
            names.append(match[1])
    return names


def top_level(source: str) -> str:
    """The code outside of brackets, comments, strings and regular expressions.

    const f = (a, b) => { g("x"); }; // f        ->        const f = () => {};

    Raises ValueError for a bracket that does not match.
    """
    out, brackets, i, before = [], [], 0, ";"  # before: the last character of code that is not a space
    while i < len(source):
        c = source[i]
        if skipped := COMMENT.match(source, i):
            i = skipped.end()
        elif skipped := STRING.match(source, i) or (c == "/" and before in REGEX_AFTER and REGEX.match(source, i)):
            i, before = skipped.end(), c
        elif c == "`" or (c == "}" and brackets[-1:] == ["${"]):  # a template's text begins or goes on
            if c == "}":
                brackets.pop()
            i, before = TEMPLATE_TEXT.match(source, i + 1).end(), c
            if source.startswith("${", i):
                brackets.append("${")
            i += 1 if source.startswith("`", i) else 2
        else:
            if c in CLOSING and (not brackets or brackets.pop() != CLOSING[c]):
                raise ValueError(f"line {source.count(NEWLINE, 0, i) + 1}: unmatched {c}")
            if not brackets:
                out.append(c)
            if c in CLOSING.values():
                brackets.append(c)
            i, before = i + 1, before if c.isspace() else c
    return "".join(out)
