"""scripts/export.py, and scripts/onnx_example.py on its files: the same masks as the engine's, without torch."""

import fcntl
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
import torch

import plain
from conftest import ROOT, SMALL, assert_refused
from dataset.files.images import read_image, read_mask, read_palette, to_tensor, write_mask
from export import KeyEncoder, MaskEncoder, export, tensor_shapes
from model import RDE_VOS, load_network
from model.efficientnet import NAME as EFFICIENTNET
from model.inference import InferenceCore
from model.reading import Embedding
from synthetic.scene import Scene

PARTS = ("key_encoder", "reading_decoder", "mask_encoder", "sam")


@pytest.fixture(scope="session")
def exported(tmp_path_factory) -> Path:
    """The shipped network's parts. An export takes half a minute, so the workers of pytest-xdist share the files."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    output = shared / "parts"
    with open(shared / "parts.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not output.exists():
            command = [sys.executable, ROOT / "scripts/export.py", "--output", output]
            result = subprocess.run(command, capture_output=True, text=True)
            assert result.returncode == 0, result.stderr
            assert "shipped with the project" in result.stdout
    assert {path.name for path in output.iterdir()} == {"network.json", *(f"{part}.onnx" for part in PARTS)}
    return output


@pytest.fixture(scope="module")
def network() -> RDE_VOS:
    return load_network()


def test_the_example_gives_the_masks_of_the_engine(command, exported, monkeypatch, network, tmp_path):
    """In at least 99.99% of the pixels. The second size is padded; embeddings have odd sides in both."""
    (tmp_path / "torch.py").write_text("raise ImportError('the example must not need torch')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for labels, size in (([4], (112, 176)), ([4], (90, 141)), ([1, 2, 5], (112, 176)), ([1, 2, 5], (90, 141))):
        # In this synthetic video the network loses no object, so that there is much to compare.
        scene = Scene(np.random.default_rng(0), *size, 11, labels)
        folder = tmp_path / f"{len(labels)}-{size[0]}"
        (folder / "frames").mkdir(parents=True)
        for t in range(11):
            frame, ids = scene.frame(t)
            cv2.imwrite(str(folder / f"frames/{t:05d}.jpg"), frame)
            if t == 0:
                write_mask(folder / "first.png", ids)
        inputs = ("--images", folder / "frames", "--mask", folder / "first.png")
        command("scripts/onnx_example.py", exported, *inputs, "--output", folder / "masks").checked()

        core = InferenceCore(network, bank="2F+L+RDE", mem_every=3, top_k=40)
        same = []
        for t, path in enumerate(sorted((folder / "frames").iterdir())):
            given = torch.from_numpy(read_mask(folder / "first.png")) if t == 0 else None
            winner = core.step(to_tensor(read_image(path)), given).argmax(0).numpy()
            expected = np.array([0, *core.object_ids])[winner]
            written = read_mask(folder / "masks" / f"{path.stem}.png")
            same.append((written == expected).mean())
            assert set(np.unique(expected)) == {0, *labels}, t
        assert len(same) == 11 and np.mean(same) >= 0.9999, same
        assert read_palette(folder / "masks/00010.png") == read_palette(folder / "first.png")


def test_the_example_reads_as_the_project_does(command, exported, tmp_path):
    """Frames in the order of their numbers, masks of any program, and the same refusals."""
    scene = Scene(np.random.default_rng(0), 64, 96, 11, [1])
    frames = tmp_path / "frames"
    frames.mkdir()
    for t in range(3):
        frame, ids = scene.frame(t)
        cv2.imwrite(str(frames / f"{t + 9}.png"), frame)  # 9, 10, 11
        if t == 0:
            cv2.imwrite(str(tmp_path / "first.png"), np.dstack([0 * ids, 0 * ids, 255 * (ids > 0)]))
    (frames / ".DS_Store").write_bytes(b"x")
    inputs = ("--images", frames, "--output", tmp_path / "masks", "--mask")
    result = command("scripts/onnx_example.py", exported, *inputs, tmp_path / "first.png").checked()
    assert "mask first.png: 1 object, 1 (" in result.stdout
    assert np.array_equal(read_mask(tmp_path / "masks/9.png"), scene.frame(0)[1])
    assert (read_mask(tmp_path / "masks/10.png") == scene.frame(1)[1]).mean() > 0.9
    cv2.imwrite(str(tmp_path / "soft.jpg"), 255 * np.uint8(scene.frame(0)[1] > 0))
    result = command("scripts/onnx_example.py", exported, *inputs, tmp_path / "soft.jpg")
    assert_refused(result, "soft.jpg", "convert_mask.py")


@torch.inference_mode()
def test_parts_agree_with_the_network_at_every_size(exported, network):
    """From 2×2 positions on, fewer than top k, and with one or several objects and embeddings in the memory."""
    parts = {name: onnxruntime.InferenceSession(exported / f"{name}.onnx") for name in PARTS}

    def run(part: str, **inputs: torch.Tensor) -> list[torch.Tensor]:
        found = parts[part].run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
        return [torch.from_numpy(array) for array in found]

    torch.manual_seed(0)
    for height, width, objects, memories, counts in (
        (2, 2, 1, 1, [2]),
        (3, 5, 4, 2, [1, 3]),
        (6, 9, 2, 4, [1, 2, 3, 1]),
    ):
        images = torch.randn(memories + 1, 3, 16 * height, 16 * width)
        masks = torch.rand(memories, objects, 16 * height, 16 * width).softmax(1)
        features = network.encode_key(images)
        query = run("key_encoder", image=images[-1:])
        for name, found in zip(features._fields, query, strict=True):
            torch.testing.assert_close(found, getattr(features, name)[-1:], atol=1e-4, rtol=1e-4)
        values = network.encode_value(images[:-1], features.f16[:-1], masks)
        for t in range(memories):
            frame = {"image": images[t : t + 1], "f16": features.f16[t : t + 1], "masks": masks[t : t + 1]}
            torch.testing.assert_close(run("mask_encoder", **frame)[0], values[t : t + 1], atol=1e-4, rtol=1e-4)
        rde_key, key, rde_value, value = features.key[:1], features.key[-1:], values[:1], values[-1:]
        found = run("sam", rde_key=rde_key, rde_value=rde_value, key=key, value=value)
        for a, b in zip(found, network.aggregate(Embedding(rde_key, rde_value), Embedding(key, value)), strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)

        # A position is repeated as often as it counts.
        repeated = [t for t, count in enumerate(counts) for _ in range(count)]
        keys = features.key[repeated].transpose(0, 1).flatten(1)
        rows = values[repeated].flatten(1, 2).transpose(0, 1).flatten(1)
        read = plain.read(keys, rows, features.key[-1].flatten(1), 40).view(1, objects, -1, height, width)
        last = type(features)(*(feature[-1:] for feature in features))
        expected = network.decode(read, last).sigmoid()
        memory = {"memory_key": features.key[:-1], "memory_value": values, "multiplicity": torch.tensor(counts)}
        frame = {name: getattr(last, name) for name in ("key", "query_value", "f8", "f4")}
        torch.testing.assert_close(run("reading_decoder", **frame, **memory)[0], expected, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_efficientnet_is_exported_for_every_size(tmp_path):
    """Sides that are even and odd at strides 16 and 32, the smallest frame included."""
    torch.manual_seed(0)
    names = {"key_backbone": EFFICIENTNET, "mask_backbone": EFFICIENTNET}
    network = RDE_VOS(replace(SMALL, **names)).eval().requires_grad_(False)
    shapes, parts = tensor_shapes(network), {}
    for name, part in (("key_encoder", KeyEncoder(network)), ("mask_encoder", MaskEncoder(network))):
        export(part.eval(), shapes, tmp_path / f"{name}.onnx")
        parts[name] = onnxruntime.InferenceSession(tmp_path / f"{name}.onnx")
    for height, width in ((2, 2), (3, 4), (6, 5), (7, 9), (12, 14)):
        image, masks = torch.randn(1, 3, 16 * height, 16 * width), torch.rand(1, 3, 16 * height, 16 * width)
        features = network.encode_key(image)
        value = network.encode_value(image, features.f16, masks)
        found = parts["key_encoder"].run(None, {"image": image.numpy()})
        frame = {"image": image.numpy(), "f16": features.f16.numpy(), "masks": masks.numpy()}
        found += parts["mask_encoder"].run(None, frame)
        for a, b in zip(found, (*features, value), strict=True):
            torch.testing.assert_close(torch.from_numpy(a), b, atol=1e-4, rtol=1e-3)
