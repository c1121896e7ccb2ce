"""hubconf.py: torch.hub loads the project from any folder, and leaves the program's own modules alone."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from conftest import ROOT, draw_clip, tensors
from model import load_network
from model.fast import fast_network
from model.inference import InferenceCore

PACKAGES = ("model", "dataset", "util")
SETTINGS = {"bank": "F+L", "mem_every": 2, "top_k": 10}


def run(folder: Path, program: str) -> str:
    """Run a program in a folder of its own, where the project is not on Python's path; returns what it prints."""
    (folder / "program.py").write_text(program)
    result = subprocess.run([sys.executable, "program.py"], cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a clip, and modules that have the names of the project's packages."""
    for name in PACKAGES:
        (tmp_path / f"{name}.py").write_text(f"OWNER = 'the program, {name}'\n")
    frames, ids = draw_clip(6, 48, 80, 2)
    torch.save((tensors(frames), torch.from_numpy(ids[0])), tmp_path / "clip.pt")
    return tmp_path


def segment(folder: Path, core: InferenceCore) -> torch.Tensor:
    frames, mask = torch.load(folder / "clip.pt")
    return torch.stack([core.step(frame, None if t else mask) for t, frame in enumerate(frames)])


@pytest.mark.parametrize("imported_before", [True, False])
def test_modules_of_the_same_names_do_not_clash(imported_before, folder, small_checkpoint):
    weights, settings = (small_checkpoint, SETTINGS) if imported_before else (None, {})
    program = f"""
if {imported_before}:
    import dataset, model, util
import sys
import torch
torch.set_num_threads(1)
REPO, weights = {str(ROOT)!r}, {weights and str(weights)!r}
core = torch.hub.load(REPO, "rde_vos_engine", source="local", weights=weights, device="cpu", **{settings})
import dataset, model, util
for module in (dataset, model, util):
    assert module.OWNER == "the program, " + module.__name__
    assert sys.modules[module.__name__] is module
frames, mask = torch.load("clip.pt")
torch.save(torch.stack([core.step(frame, None if t else mask) for t, frame in enumerate(frames)]), "result.pt")
from rde_vos_hub.model import RDE_VOS
assert isinstance(core.network, RDE_VOS)
assert isinstance(torch.hub.load(REPO, "rde_vos", source="local", weights=weights), RDE_VOS)
assert sys.modules["model"] is model and REPO not in sys.path
"""
    run(folder, program)
    core = InferenceCore(fast_network(load_network(weights)), **settings)
    assert torch.allclose(torch.load(folder / "result.pt"), segment(folder, core), atol=1e-4)


def test_the_packages_import_each_other_in_the_form_that_can_be_renamed():
    for path in (path for name in PACKAGES for path in ROOT.glob(f"{name}/**/*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert not {alias.name.split(".")[0] for alias in node.names} & set(PACKAGES), (
                    f"{path}: from ... import"
                )


def test_what_cannot_be_loaded_is_refused(folder):
    """Unusable weights and settings, and a second copy of the project in the same program."""
    shutil.copy(ROOT / "hubconf.py", folder)
    program = f"""
import torch
def refused(repo, **arguments):
    try:
        torch.hub.load(repo, "rde_vos_engine", source="local", **arguments)
    except Exception as error:
        print(type(error).__name__, error)
refused({str(ROOT)!r}, weights="absent.pth")
refused({str(ROOT)!r}, bank="F+X")
refused(".")
"""
    missing, bank, copy = run(folder, program).splitlines()
    assert missing.startswith("InputError") and "absent.pth is missing" in missing
    assert bank.startswith("InputError") and "F+X" in bank
    assert copy.startswith("RuntimeError") and str(ROOT) in copy and str(folder) in copy
