"""BUILD says what the code does: files = targets, imports = deps, and imports go one way."""

from __future__ import annotations

import ast
import dataclasses
import pathlib
import re
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
FOLDERS = ("wrpn_tf", "tflite_export", "examples", "tests")
# The architecture from the bottom up. A layer imports only layers of the lines above its own.
LAYERS = (
    {"caller_depth", "name_rules", "text_table", "whole_file"},
    {"grid", "accelerator"},
    {"keras_flavor"},
    {"model_graph"},
    {"call_arguments"},
    {"regions"},
    {"quantization", "widening"},
    {"training", "analysis", "applications", "simulation"},
    {"recipe"},
    {"wrpn_tf"},
    {"tflite_export"},
    {"examples"},
)
NUMPY_ONLY = {"grid", "accelerator"}
# What a Keras 3 user must not load, and the modules that load it; only functions import those.
LEGACY = {"tf_keras", "tensorflow_model_optimization"}
LEGACY_FILES = {
    "wrpn_tf/quantization/quantize_scheme.py",
    "wrpn_tf/quantization/tfmot_layers.py",
}
# Third-party module -> the requirement in setup.py that brings it.
REQUIRED = {
    "ai_edge_litert": "ai-edge-litert",
    "flatbuffers": "flatbuffers",
    "h5py": "h5py",
    "keras": "keras",
    "numpy": "numpy",
    "tensorflow": "tensorflow",
    "tensorflow_model_optimization": "tensorflow-model-optimization",
    "tf_keras": "tf_keras",
    "wrapt": "wrapt",
}
# What an extra brings: only functions import it.
OPTIONAL = {"matplotlib": "plots"}


@dataclasses.dataclass
class Target:
    rule: str
    name: str
    srcs: list[str]
    deps: set[str]
    main: str | None


def read_build(root: pathlib.Path) -> dict[str, Target]:
    """Runs BUILD (Starlark is Python too) with functions that note what it declares."""
    targets: dict[str, Target] = {}

    def declare(rule):
        def add(name, srcs=(), deps=(), main=None, **_):
            assert name not in targets, f"BUILD declares {name} twice"
            assert len(deps) == len(set(deps)), f"BUILD repeats a dependency of {name}"
            assert all(dep.startswith(":") for dep in deps), f"{name}: deps are written `:name`"
            targets[name] = Target(rule, name, list(srcs), {dep[1:] for dep in deps}, main)

        return add

    def glob(include, exclude=()):
        found = {path for pattern in include for path in root.glob(pattern)}
        found -= {path for pattern in exclude for path in root.glob(pattern)}
        assert found, f"BUILD globs no file with {include}"
        return sorted(path.relative_to(root).as_posix() for path in found)

    functions = {rule: declare(rule) for rule in ("py_library", "py_test")}
    functions |= {"glob": glob, "load": lambda *_: None, "package": lambda **_: None}
    exec(compile((root / "BUILD").read_text(), "BUILD", "exec"), functions)
    return targets


@dataclasses.dataclass(frozen=True)
class Import:
    module: str
    at_top: bool  # Runs when the importing module is imported.


def read_imports(source: str, file: str) -> set[Import]:
    """Returns what a file imports, wherever in it; `from a import b` gives `a.b`."""
    package = file.removesuffix(".py").split("/")[:-1]
    found = set()

    def visit(node, at_top):
        if isinstance(node, ast.Import):
            found.update(Import(alias.name, at_top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base += node.module.split(".") if node.module else []
            found.update(Import(".".join([*base, alias.name]), at_top) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            named = [arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)]
            found.update(Import(name, at_top) for name in named)
        for child in ast.iter_child_nodes(node):
            in_function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            for_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            visit(child, at_top and not in_function and not for_types)

    visit(ast.parse(source, file), True)
    return found


class Project:
    """The files of a source tree, the targets of its BUILD, and who imports whom."""

    def __init__(self, root: pathlib.Path) -> None:
        self.targets = read_build(root)
        self.files = sorted(
            path.relative_to(root).as_posix()
            for folder in FOLDERS
            for path in (root / folder).rglob("*.py")
        )
        self.owner = {src: target for target in self.targets.values() for src in target.srcs}
        self.imports = {file: read_imports((root / file).read_text(), file) for file in self.files}
        self.imports |= {src: set() for src in {*self.owner} - {*self.files}}

    def file_of(self, module: str) -> str | None:
        """Returns the file that `import module` runs, or for a name in a module that module's."""
        path = module.replace(".", "/")
        parent = path.rpartition("/")[0]
        candidates = [f"{path}.py", f"{path}/__init__.py", f"{parent}.py", f"{parent}/__init__.py"]
        return next((file for file in candidates if file in self.imports), None)

    def imported(self, target: Target) -> set[str]:
        """Returns the targets that own what a target's files import."""
        modules = {found.module for src in target.srcs for found in self.imports[src]}
        files = {self.file_of(module) for module in modules} - {None}
        return {self.owner[file].name for file in files} - {target.name}

    def outside(self, target: Target) -> set[Import]:
        """Returns what a target's files import from neither this project nor Python itself."""
        return {
            dataclasses.replace(found, module=found.module.partition(".")[0])
            for src in target.srcs
            for found in self.imports[src]
            if found.module.partition(".")[0] not in {*FOLDERS, *sys.stdlib_module_names}
        }

    def file_errors(self) -> list[str]:
        """Lists the files in no target or in several, and the sources that are no files."""
        shared = {target.main for target in self.targets.values()}
        listed = [src for target in self.targets.values() for src in target.srcs]
        errors = [f"{file} is in no target" for file in self.files if file not in listed]
        errors += [
            f"BUILD lists {src}, which is no file" for src in sorted({*listed} - {*self.files})
        ]
        repeated = {src for src in listed if listed.count(src) > 1} - shared
        return errors + [f"{src} is in several targets" for src in sorted(repeated)]

    def dep_errors(self) -> list[str]:
        """Lists the imports without a dep and the deps without an import."""
        errors = []
        for target in self.targets.values():
            # pytest loads the fixtures; no test imports them.
            expected = self.imported(target) | ({"conftest"} if target.rule == "py_test" else set())
            errors += [f"{target.name} imports {dep}" for dep in sorted(expected - target.deps)]
            errors += [f"{target.name} never uses {dep}" for dep in sorted(target.deps - expected)]
        return errors

    def direction_errors(self) -> list[str]:
        """Lists the libraries in no layer, and the deps that go sideways or up."""
        rank = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
        libraries = [target for target in self.targets.values() if target.name in rank]
        strangers = [
            target.name
            for target in self.targets.values()
            if target.name not in rank and any(not src.startswith("tests/") for src in target.srcs)
        ]
        return [f"{name} is no layer" for name in strangers] + [
            f"{target.name} may not import {dep}"
            for target in libraries
            for dep in sorted(target.deps)
            if rank.get(dep, len(LAYERS)) >= rank[target.name]
        ]


@pytest.fixture(scope="module")
def project() -> Project:
    return Project(ROOT)


def test_every_file_is_in_exactly_one_target(project):
    assert project.file_errors() == []


def test_deps_are_the_imports(project):
    assert project.dep_errors() == []


def test_imports_go_one_way(project):
    assert project.direction_errors() == []


def test_every_test_target_runs_its_own_files(project):
    for target in project.targets.values():
        if target.rule == "py_test":
            assert target.main in target.srcs, target.name
            assert [src for src in target.srcs if src.endswith("_test.py")], target.name


def test_imported_scripts_share_no_flag(project):
    # absl's flags are one set per process: importing a second script with one's flag would fail.
    modules = [found.module for imports in project.imports.values() for found in imports]
    imported = {module.removeprefix("examples.").partition(".")[0] for module in modules}
    files = [ROOT / file for file in project.files if file.startswith("examples/")]
    sources = [file.read_text() for file in files if file.stem in imported]
    names = [name for source in sources for name in re.findall(r'DEFINE_\w+\(\s*"(\w+)"', source)]
    assert "figure" in names  # of reproduce_papers.py
    assert len(names) == len(set(names)), sorted(names)


def test_engine_layers_know_only_numpy(project):
    for name in NUMPY_ONLY & project.targets.keys():
        target = project.targets[name]
        assert {found.module for found in project.outside(target)} <= {"numpy"}, name


def test_packages_import_only_what_setup_requires(project):
    setup = (ROOT / "setup.py").read_text()
    for target in project.targets.values():
        if target.srcs[0].startswith(("wrpn_tf/", "tflite_export/")):
            for found in project.outside(target):
                if found.module in OPTIONAL:
                    assert not found.at_top, (target.name, found.module)
                    assert f'"{OPTIONAL[found.module]}": ["{found.module}"]' in setup
                    continue
                assert f'"{REQUIRED[found.module]}>=' in setup, (target.name, found.module)


def test_only_the_tfmot_modules_load_tf_keras(project):
    ours = [file for file in project.files if file.startswith(("wrpn_tf/", "tflite_export/"))]
    loading: set[str] = set()
    for _ in ours:  # Each round follows the imports one step further.
        loading |= {
            file
            for file in ours
            for found in project.imports[file]
            if found.at_top
            and (
                found.module.partition(".")[0] in LEGACY or project.file_of(found.module) in loading
            )
        }
    assert loading == LEGACY_FILES


def test_deferred_classes_are_in_the_deps_of_their_register(project):
    from wrpn_tf import registration

    register = project.owner["wrpn_tf/registration.py"]
    for classes in registration.REGISTERED_CLASSES.values():
        for module in classes.values():
            file = project.file_of(module)
            assert file is not None, f"{module} does not exist"
            assert project.owner[file].name in {*register.deps, register.name}, module


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import numpy as np", {Import("numpy", True)}),
        ("from wrpn_tf import grid", {Import("wrpn_tf.grid", True)}),
        ("from . import a\nfrom ..b import c", {Import("p.q.a", True), Import("p.b.c", True)}),
        ("def f():\n    import keras", {Import("keras", False)}),
        ("class A:\n    import keras", {Import("keras", True)}),
        ("if TYPE_CHECKING:\n    import keras", {Import("keras", False)}),
        ("importlib.import_module('tf_keras')", {Import("tf_keras", True)}),
        ("f = lambda: import_module('tf_keras.x')", {Import("tf_keras.x", False)}),
    ],
)
def test_every_form_of_import_is_read(source, expected):
    assert read_imports(source, "p/q/r.py") == expected


@pytest.fixture
def small_project(tmp_path):
    def write(build, **sources):
        for folder in FOLDERS:
            (tmp_path / folder).mkdir()
        for name, source in sources.items():
            (tmp_path / "wrpn_tf" / f"{name}.py").write_text(source)
        (tmp_path / "BUILD").write_text(build)
        return Project(tmp_path)

    return write


LIBRARY = 'py_library(name = "{0}", srcs = ["wrpn_tf/{0}.py"], deps = {1})\n'


def test_a_file_in_no_target_is_found(small_project):
    project = small_project(LIBRARY.format("grid", []), grid="", recipe="")
    assert project.file_errors() == ["wrpn_tf/recipe.py is in no target"]


def test_a_missing_and_an_idle_dep_are_found(small_project):
    build = LIBRARY.format("grid", []) + LIBRARY.format("recipe", [":keras_flavor"])
    build += LIBRARY.format("keras_flavor", [])
    project = small_project(
        build, grid="", keras_flavor="", recipe="def f():\n    from wrpn_tf import grid"
    )
    assert project.dep_errors() == ["recipe imports grid", "recipe never uses keras_flavor"]


def test_an_import_upwards_is_found(small_project):
    build = LIBRARY.format("grid", [":recipe"]) + LIBRARY.format("recipe", [])
    project = small_project(build, grid="import wrpn_tf.recipe", recipe="")
    assert project.dep_errors() == []
    assert project.direction_errors() == ["grid may not import recipe"]
