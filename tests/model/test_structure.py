"""The order of the project's packages: who may import whom."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

from conftest import ROOT

# The first names of the project's modules: scripts and packages lie in the root folder and in scripts/.
PROJECT = {
    path.stem for pattern in ("*", "scripts/*") for path in ROOT.glob(pattern) if path.is_dir() or path.suffix == ".py"
}
GROUND = (
    "errors",
    "imagenet",
    "files",
    "device",
    "distributed",
    "parallel",
    "progress",
    "argument_types",
    "flags",
    "packages",
)
GROUND_MODULES = {"util", *(f"util.{name}" for name in GROUND)}
UPPER_PACKAGES = {"model", "dataset", "util.evaluation", "util.training", *GROUND_MODULES}


def imports(path: Path) -> set[str]:
    """The modules of the project that a file imports."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports a module by a relative name"
            for alias in node.names:
                inner = ROOT.joinpath(*node.module.split("."), alias.name)
                is_module = inner.is_dir() or inner.with_suffix(".py").is_file()
                modules.add(f"{node.module}.{alias.name}" if is_module else node.module)
    return {module for module in modules if module.split(".")[0] in PROJECT}


def is_allowed(module: str, allowed: set[str]) -> bool:
    """Whether a module is in ``allowed``, or within a package there; `util` stands for its own file only."""
    return module in allowed or any(module.startswith(f"{name}.") for name in allowed - {"util"})


@pytest.mark.parametrize(
    ("files", "allowed"),
    [
        ("util/__init__.py", set()),
        *((f"util/{name}.py", GROUND_MODULES) for name in GROUND),
        ("model/**/*.py", {"model", *GROUND_MODULES}),
        ("dataset/**/*.py", {"dataset", *GROUND_MODULES}),
        ("util/evaluation/**/*.py", UPPER_PACKAGES - {"util.training"}),
        ("util/training/**/*.py", UPPER_PACKAGES),
    ],
)
def test_imports_go_downwards(files, allowed):
    paths = sorted(ROOT.glob(files))
    assert paths
    for path in paths:
        forbidden = {module for module in imports(path) if not is_allowed(module, allowed)}
        assert not forbidden, f"{path} imports {', '.join(sorted(forbidden))}"


def test_util_has_no_other_modules():
    names = {path.stem for path in (ROOT / "util").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert names - {"__pycache__"} == {"__init__", *GROUND, "evaluation", "training"}


def test_the_version_is_the_same_everywhere():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    citation = (ROOT / "CITATION.cff").read_text()
    date = re.search(r"^date-released: (\S+)$", citation, re.MULTILINE)[1]
    assert re.search(r"^version: (\S+)$", citation, re.MULTILINE)[1] == version
    sections = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert sections[0] == f"{version} ({date})"


def test_the_files_that_contributing_names_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    mentioned = re.findall(r"`((?:util|model|dataset|scripts|tests)/[\w/]+(?:\.(?:py|md|sh))?)`", text)
    assert len(mentioned) > 15
    missing = [name for name in mentioned if not (ROOT / name).exists() and "NAME" not in name]
    assert not missing
