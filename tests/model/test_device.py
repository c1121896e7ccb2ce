"""Where the scripts compute."""

import os
import subprocess
import sys

import pytest
import torch

from conftest import ROOT
from util.device import choose_device
from util.errors import InputError


def test_each_process_of_torchrun_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setenv("LOCAL_RANK", "63")  # more GPUs than a machine has, so that the refusal tells which one it was
    for name in ("auto", "cuda"):
        with pytest.raises(InputError, match="cuda:63 cannot be used here"):
            choose_device(name)


def test_a_launcher_may_show_each_process_one_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_RANK", "63")
    with pytest.raises(InputError, match="cuda:0 cannot be used here"):
        choose_device("cuda")


def test_a_device_without_data_is_refused():
    with pytest.raises(InputError, match="device meta cannot be used here"):
        choose_device("meta")


def test_without_a_gpu_auto_is_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")


@pytest.mark.parametrize(("environment", "threads"), [({}, 2), ({"OMP_NUM_THREADS": "1"}, 1)])
def test_processes_share_the_cores(environment, threads):
    """Two processes on a machine, started without torchrun, which would set OMP_NUM_THREADS itself."""
    program = (
        "import torch, util.distributed as d\n"
        "d.available_cores = lambda: 4\n"
        "torch.distributed.init_process_group = lambda *a, **k: None\n"
        "d.Processes()\n"
        "print(torch.get_num_threads())\n"
    )
    kept = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    group = {"RANK": "0", "WORLD_SIZE": "2", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", program], env={**kept, **group, **environment}, capture_output=True, text=True
    )
    assert result.stdout.strip() == str(threads), result.stderr
