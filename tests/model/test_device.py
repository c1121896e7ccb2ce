"""Where the scripts compute."""

import contextlib
import os
import signal
import subprocess
import sys

import pytest
import torch

from conftest import HANGS, ROOT
from util.device import choose_device, enough_memory
from util.errors import InputError


def test_each_process_of_torchrun_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "63")  # more GPUs than a machine has, so that the refusal tells which one it was
    for name in ("auto", "cuda"):
        with pytest.raises(InputError, match="cuda:63 cannot be used here"):
            choose_device(name)


def test_a_launcher_may_show_each_process_one_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_RANK", "63")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with pytest.raises(InputError, match="cuda:0 cannot be used here"):  # as this machine shows none
        choose_device("auto")


@pytest.mark.parametrize(
    "message",
    [
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "GET was unable to find an engine to execute this computation",
    ],
)
def test_libraries_of_cuda_that_get_no_memory_say_so_otherwise(message):
    with pytest.raises(InputError, match=r"too little memory .*; take less"), enough_memory("take less"):
        raise RuntimeError(message)


def run_program(program: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip


def test_a_process_that_hangs_after_the_loss_of_another_is_ended():
    """As NCCL may hang while Python ends."""
    program = (
        "import atexit, time, torch, util.distributed as d\n"
        "from util.errors import command_line\n"
        "d._SECONDS_TO_END = 1\n"
        "torch.distributed.init_process_group = lambda *a, **k: None\n"
        "atexit.register(time.sleep, 1000)\n"
        "@command_line\n"
        "def main():\n"
        "    with d.Processes().collective():\n"
        "        raise RuntimeError('NCCL communicator was aborted')\n"
        "main()\n"
    )
    result = run_program(program, RANK="0", WORLD_SIZE="2")
    assert result.returncode == -signal.SIGALRM
    assert "error: process 0 lost another process (NCCL communicator was aborted)" in result.stderr


def test_processes_end_with_torchrun():
    """Even if it had no time to end them."""
    child = "import os, time, util.distributed as d; d.Processes(); print(os.getpid(), flush=True); time.sleep(200)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TORCHELASTIC_RUN_ID": "run"}
    with subprocess.Popen([sys.executable, "-c", parent], env=environment, stdout=subprocess.PIPE) as torchrun:
        assert int(torchrun.stdout.readline())
        torchrun.kill()
        # The pipe ends when the orphan has closed it, too.
        assert torchrun.communicate(timeout=60)[0] == b""


PARENT = """
import os, sys, time
from pathlib import Path
from util.distributed import Processes, run_script
from util.parallel import in_own_process, in_processes

def work(*_):
    Processes()
    print(os.getpid(), flush=True)
    time.sleep(10_000)

if __name__ == "__main__":
    work() if len(sys.argv) > 1 else CALL
"""


@pytest.mark.parametrize(
    "call",
    ["in_own_process(work, remedy='')", "list(in_processes(work, [1], 2))", "run_script(Path(__file__), ['child'])"],
)
def test_a_killed_process_leaves_no_process_that_works_for_it(call, tmp_path):
    (tmp_path / "parent.py").write_text(PARENT.replace("CALL", call))
    command = [sys.executable, tmp_path / "parent.py"]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE) as parent:
        orphan = int(parent.stdout.readline())
        parent.kill()
        try:
            assert parent.communicate(timeout=HANGS)[0] == b""  # the pipe ends with its last writer
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(orphan, signal.SIGKILL)


def test_without_a_gpu_auto_is_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")


@pytest.mark.parametrize(("environment", "threads"), [({}, 2), ({"OMP_NUM_THREADS": "1"}, 1)])
def test_processes_share_the_cores(environment, threads, monkeypatch):
    """Two processes on a machine, started without torchrun, which would set OMP_NUM_THREADS itself."""
    program = (
        "import torch, util.distributed as d\n"
        "d.available_cores = lambda: 4\n"
        "torch.distributed.init_process_group = lambda *a, **k: None\n"
        "d.Processes()\n"
        "print(torch.get_num_threads())\n"
    )
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    result = run_program(program, RANK="0", WORLD_SIZE="2", **environment)
    assert result.stdout.strip() == str(threads), result.stderr
