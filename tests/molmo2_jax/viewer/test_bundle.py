"""Bundling of small modules written here, and of those of the page, which have to be real ES modules, too."""

import pathlib
import re
import shutil
import subprocess

import pytest

from molmo2_jax.viewer import page
from molmo2_jax.viewer.bundle import bundle, parse_module, top_level

MODULES = sorted(path.name for path in page.STATIC.glob("*.js"))


def write(folder, **modules):
    for name, text in modules.items():
        (folder / f"{name}.js").write_text(text)
    return folder


def test_modules_follow_those_that_they_import(tmp_path):
    write(
        tmp_path,
        page='// The page.\nimport { b } from "./b.js";\nimport { a, f } from "./a.js";\n\nf(a, b);\n',
        b='import {\n  a,\n} from "./a.js";\nexport const b = a + 1;\n',
        a="export const a = 1;\nexport async function f() {}\nconst own = `export const c`;\n",
        unused="export const a = 2;\n",
    )
    first = "const a = 1;\nasync function f() {}\nconst own = `export const c`;\n"
    assert bundle(tmp_path, "page.js") == first + "const b = a + 1;\n// The page.\n\nf(a, b);\n"


def test_a_name_that_two_modules_declare_is_an_error(tmp_path):
    write(
        tmp_path, page='import { f } from "./a.js";\nconst x = 1, near = f;\n', a="let near = 1;\nexport class f {}\n"
    )
    with pytest.raises(ValueError, match=r"page\.js: a\.js declares near, too"):
        bundle(tmp_path, "page.js")


def test_names_within_functions_are_not_shared(tmp_path):
    inner = "export const {} = () => {{ const same = 1; return same; }};\n"
    write(tmp_path, page='import { f } from "./a.js";\n' + inner.format("g"), a=inner.format("f"))
    assert bundle(tmp_path, "page.js").count("const same") == 2


@pytest.mark.parametrize("name", ["g", "f as h", "F"])
def test_an_import_of_a_name_that_is_not_exported_is_an_error(tmp_path, name):
    write(tmp_path, page=f'import {{ f, {name} }} from "./a.js";\n', a="export const f = 1;\nconst g = 2;\n")
    with pytest.raises(ValueError, match=rf"page\.js: a\.js does not export {name}"):
        bundle(tmp_path, "page.js")


def test_an_import_cycle_is_an_error(tmp_path):
    write(
        tmp_path,
        page='import { a } from "./a.js";\n',
        a='import { b } from "./b.js";\nexport const a = 1;\n',
        b='import { a } from "./a.js";\nexport const b = 1;\n',
    )
    with pytest.raises(ValueError, match=r"import cycle: a\.js -> b\.js -> a\.js"):
        bundle(tmp_path, "page.js")


def test_an_import_of_a_missing_module_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.js"):
        bundle(write(tmp_path, page='import { a } from "./a.js";\n'), "page.js")


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ('import f from "./a.js";', "x.js: cannot bundle 'import f from"),
        ('import * as a from "./a.js";', "x.js: cannot bundle 'import"),
        ("export default f;", "x.js: cannot bundle 'export default f'"),
        ("const f = 1;\nexport { f };", "x.js: cannot bundle 'export {}'"),
        ("const { a, b } = f();", r"x.js: cannot bundle the pattern '\{\} = f\(\)'"),
    ],
)
def test_other_forms_are_errors(statement, message):
    with pytest.raises(ValueError, match=message):
        parse_module("x.js", statement + "\n")


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ('const f = (a, b) => { g("x)"); }; // f (', "const f = () => {}; "),
        ("const a = `${n ? `b, ${c}` : '}'} ]`, b = 1;", "const a = , b = 1;"),
        ("const a = /[/}]\\/(/.test(s) / 2, b = c / d / (e);", "const a = .test() / 2, b = c / d / ();"),
        ("f(); /* } */ function g() { x = /}/; }", "f();  function g() {}"),
        ('const a = "it\'s", b = \'"\', c = "\\"(";', "const a = , b = , c = ;"),
    ],
)
def test_code_at_top_level(source, code):
    assert top_level(source) == code


@pytest.mark.parametrize("source", ["f(a];", "f(a));", "const a = `${f(}`;"])
def test_an_unmatched_bracket_is_an_error(source):
    with pytest.raises(ValueError, match="line 2: unmatched"):
        top_level("\n" + source)


def test_every_module_of_the_page_is_in_its_script_once():
    script = bundle(page.STATIC, "page.js")
    for name in MODULES:
        first_line = (page.STATIC / name).read_text().splitlines()[0]
        assert first_line.startswith("// ") and script.count(f"{first_line}\n") == 1
    assert not re.search(r"^(import|export)\b", script, re.MULTILINE)
    assert "</script" not in script.lower() and "<!--" not in script


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_exactly_what_it_uses(name):
    """No exported name is shadowed or unused, so that a name in the code is the exported one."""
    modules = {other: parse_module(other, (page.STATIC / other).read_text()) for other in MODULES}
    exported = {one: other for other, module in modules.items() for one in module.exports if other != name}
    imported = {one: other for other, names in modules[name].imports.items() for one in names}
    # Words of a comment or a string are not names; neither are properties and keys.
    code = re.sub(r"^\s*//.*|\s// .*|\"[^\"\n]*\"", "", modules[name].text, flags=re.MULTILINE)
    used = set(re.findall(r"(?<![\w$])(?<!(?<!\.\.)\.)[A-Za-z_$][\w$]*(?![\w$]|:)", code))
    assert {one: other for one, other in exported.items() if one in used} == imported


@pytest.mark.skipif(shutil.which("node") is None, reason="no node")
@pytest.mark.parametrize("name", [*MODULES, "the bundle"])
def test_a_module_parses_as_a_module(name, tmp_path):
    source = bundle(page.STATIC, "page.js") if name == "the bundle" else (page.STATIC / name).read_text()
    copy = pathlib.Path(tmp_path / "module.mjs")
    copy.write_text(source)
    result = subprocess.run(["node", "--check", copy], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
