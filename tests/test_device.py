"""Where the scripts compute."""

import pytest
import torch

from util.device import choose_device
from util.errors import InputError


def test_each_process_of_torchrun_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "63")  # more GPUs than a machine has, so that the refusal tells which one it was
    for name in ("auto", "cuda"):
        with pytest.raises(InputError, match="cuda:63 cannot be used here"):
            choose_device(name)


def test_without_a_gpu_auto_is_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
