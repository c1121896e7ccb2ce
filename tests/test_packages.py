"""Scripts that need packages beyond requirements.txt."""

import sys

import pytest

from conftest import assert_refused


@pytest.mark.parametrize(
    ("script", "module", "package", "file"),
    [("scripts/download.py", "downloads.fetch", "gdown", "scripts/requirements/download.txt")],
)
def test_a_missing_package_is_named_with_the_file_to_install(script, module, package, file, inline, monkeypatch):
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, package, None)  # the import fails as that of a missing package does
    assert_refused(inline(script, "--help"), f"{package} is missing", "pip install -r", file)
