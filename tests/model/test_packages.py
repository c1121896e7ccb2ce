"""Scripts that need packages beyond requirements.txt."""

import ast
import re
import sys
from importlib.metadata import packages_distributions

import pytest

from conftest import ROOT, assert_refused


@pytest.mark.parametrize(
    ("script", "module", "package", "file"),
    [
        ("scripts/download.py", "downloads.fetch", "gdown", "scripts/requirements/download.txt"),
        ("scripts/annotate.py", "annotation.server", "aiohttp", "scripts/requirements/annotate.txt"),
        ("scripts/export.py", "onnx", "onnx", "scripts/requirements/export.txt"),
        ("scripts/export.py", "onnxscript", "onnxscript", "scripts/requirements/export.txt"),
        ("scripts/onnx_example.py", "onnxruntime", "onnxruntime", "scripts/requirements/export.txt"),
    ],
)
def test_a_missing_package_is_named_with_the_file_to_install(script, module, package, file, inline, monkeypatch):
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, package, None)  # the import fails as that of a missing package does
    assert_refused(inline(script, "--help"), f"{package} is missing", "pip install -r", file)


def test_every_package_is_in_some_file_of_requirements():
    """A machine with all of these files installed can run every script and every test."""
    files = [ROOT / "requirements.txt", *(ROOT / "scripts" / "requirements").glob("*.txt")]
    listed = {re.split(r"[>=<,;# ]", line)[0] for file in files for line in file.read_text().splitlines()} - {""}
    provided = {module for module, names in packages_distributions().items() if listed & set(map(str.lower, names))}
    ours = {path.stem for path in [*ROOT.glob("*"), *(ROOT / "scripts").glob("*"), *(ROOT / "tests").rglob("*.py")]}
    missing = {}
    for path in ROOT.glob("**/*.py"):
        if not path.relative_to(ROOT).parts[0].startswith("."):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [node.module] if isinstance(node, ast.ImportFrom) else []
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else names
                for name in {name.split(".")[0] for name in names if name}:
                    if name not in ours | provided | sys.stdlib_module_names:
                        missing[name] = path
    assert not missing
