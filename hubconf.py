"""torch.hub's entry points: the network and the engine from any folder, in one line.

The project's packages have common names: ``model``, ``dataset`` and ``util``. A program that loads the project may have
a module named ``model`` of its own. This file therefore imports the packages under another name, as parts of the
package ``rde_vos_hub``: ``model.inference`` becomes ``rde_vos_hub.model.inference``. While a file of the project is
imported this way, its imports of the project's packages are renamed, too. The program's own modules are neither used
nor replaced, whether the program has imported them before or imports them later. Pickling and ``torch.compile`` work,
because every module is in ``sys.modules`` under its own name. Another process, such as a worker that Python starts
afresh, has to call ``torch.hub.load`` before it unpickles a network.

After the first ``torch.hub.load`` a program can import everything else of the project:

    from rde_vos_hub.dataset.images import read_image, read_mask, to_tensor
"""

import ast
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
import types

import torch

dependencies = ["torch", "numpy", "PIL", "cv2"]

_NAME = "rde_vos_hub"
_ROOT = os.path.dirname(os.path.realpath(__file__))
_PACKAGES = ("model", "dataset", "util")


def rde_vos(weights: str | os.PathLike | None = None, device: str | torch.device = "auto") -> torch.nn.Module:
    """The network of RDE-VOS in eval mode, made fast for its device.

        network = torch.hub.load("RDE-VOS", "rde_vos", source="local")  # the folder of the project
        network = torch.hub.load("RDE-VOS", "rde_vos", source="local", weights="model_s012_final.pth", device="cuda")

    Args:
        weights: published weights of RDE-VOS or STCN, or weights that this project has written. The file determines
            the architecture. None is the small network that comes with the project.
        device: a device of torch, or "auto": a GPU if there is one, otherwise the CPU.

    Returns:
        a network for inference, without gradients. Its methods are ``encode_key``, ``encode_value``, ``aggregate`` and
        ``decode``; the engine of `rde_vos_engine` calls them. A network in half precision is
        ``rde_vos_hub.model.fast.fast_network(rde_vos_hub.model.load_network(weights, device), torch.bfloat16)``.

    Raises:
        rde_vos_hub.util.errors.InputError: the weights or the device cannot be used.
    """
    choose_device = _project("util.device").choose_device
    return _project("util.evaluation.segmentation").engine_network(weights, choose_device(str(device)), amp=False)


def rde_vos_engine(
    weights: str | os.PathLike | None = None,
    device: str | torch.device = "auto",
    bank: str = "2F+L+RDE",
    mem_every: int = 3,
    top_k: int = 40,
    confirm_updates: bool = False,
) -> object:
    """An engine that segments one video, frame by frame.

        core = torch.hub.load("RDE-VOS", "rde_vos_engine", source="local")  # the folder of the project
        from rde_vos_hub.dataset.images import read_image, read_mask, to_tensor

        prob = core.step(to_tensor(read_image("00000.jpg")), read_mask("00000.png"))
        prob = core.step(to_tensor(read_image("00001.jpg")))  # [K+1,H,W]: background, then core.object_ids

    Args:
        weights, device: as for `rde_vos`.
        bank: the memory bank, in the notation of the paper's Table 5, such as "F+L", or "STM", which grows.
        mem_every: θ, the number of frames between two updates of the memory.
        top_k: the number of memory positions that each position of a frame reads.
        confirm_updates: whether an object is memorised as absent where the first frame alone does not find it.

    Returns:
        a new `InferenceCore`. Each video needs an engine of its own; another one with the same network is
        ``rde_vos_hub.model.inference.InferenceCore(core.network)``.

    Raises:
        rde_vos_hub.util.errors.InputError: the weights, the device or the settings cannot be used.
    """
    settings = _project("util.evaluation.segmentation").EngineSettings(
        bank=bank, mem_every=mem_every, top_k=top_k, confirm_updates=confirm_updates
    )
    return settings.core(rde_vos(weights, device))


class _Loader(importlib.machinery.SourceFileLoader):
    """Renames a file's imports of the project's packages."""

    def get_code(self, fullname: str) -> types.CodeType:
        # Not by way of the cached bytecode, which belongs to the same file under its usual name.
        path = self.get_filename(fullname)
        return self.source_to_code(_Renamed().visit(ast.parse(self.get_data(path), path)), path)


class _Renamed(ast.NodeTransformer):
    """``from model.memory import ...`` becomes ``from rde_vos_hub.model.memory import ...``."""

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom:
        if node.module.split(".")[0] in _PACKAGES:
            node.module = f"{_NAME}.{node.module}"
        return node


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules of ``rde_vos_hub`` in the project's folder."""

    def find_spec(
        self, fullname: str, path: object, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not fullname.startswith(f"{_NAME}."):
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.origin is not None and spec.origin.endswith(".py"):
            spec.loader = _Loader(fullname, spec.origin)
        return spec


def _project(name: str) -> types.ModuleType:
    """A module of the project by its usual name."""
    package = sys.modules.get(_NAME)
    if package is None:
        package = sys.modules[_NAME] = types.ModuleType(_NAME, "The packages of RDE-VOS, see hubconf.py.")
        package.__path__ = [_ROOT]
        sys.meta_path.insert(0, _Finder())
    elif list(package.__path__) != [_ROOT]:
        raise RuntimeError(f"this program has loaded RDE-VOS from {package.__path__[0]}; start another one for {_ROOT}")
    return importlib.import_module(f"{_NAME}.{name}")
