"""The wider key encoder, the loss of the keys, and `scripts/distill_keys.py`."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from conftest import Command, assert_refused, draw_clip
from dataset.images import write_mask
from distillation import FramePairs, ImageNetTeacher, affinity_divergence, train_new_channels, widened
from distillation.teacher import TEMPERATURE
from model import RDE_VOS, NetworkConfig, load_network, save_network
from pasting import find_sources

SCRIPT = "scripts/distill_keys.py"


NARROW = NetworkConfig(
    key_backbone="resnet18", key_width=8, mask_backbone="resnet10", mask_width=8, key_channels=16, value_channels=32,
    decoder_channels=(32, 16, 16),
)  # fmt: skip


@pytest.fixture(params=["resnet18", "resnet50"])
def narrow(request: pytest.FixtureRequest) -> RDE_VOS:
    """A network with a narrow key encoder, in which every weight counts."""
    torch.manual_seed(0)
    network = RDE_VOS(replace(NARROW, key_backbone=request.param))
    for parameter in network.parameters():
        if not parameter.any():  # zero from the start, as the norms of residual branches are
            torch.nn.init.normal_(parameter, std=0.1)
    return network


@pytest.fixture
def narrow_checkpoint(tmp_path: Path) -> Path:
    """A narrow network as a file."""
    torch.manual_seed(0)
    save_network(RDE_VOS(NARROW), tmp_path / "narrow.pth")
    return tmp_path / "narrow.pth"


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A folder with a video of one object."""
    frames, ids = draw_clip(12, 96, 128, 1)
    for t in range(12):
        path = tmp_path / "clips/JPEGImages/video" / f"{t:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(frames[t]).save(path)
        write_mask(tmp_path / "clips/Annotations/video" / f"{t:05d}.png", ids[t])
    return tmp_path / "clips"


def seen_by_others(network: RDE_VOS) -> list[Tensor]:
    """What the other parts make of the key encoder's features: the value, the query value and the masks' logits."""
    network.eval()
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(1, 3, 64, 96, generator=generator)
    masks = (torch.rand(1, 2, 64, 96, generator=generator) > 0.5).float()
    features = network.encode_key(image)
    value = network.encode_value(image, features.f16, masks)
    return [value, features.query_value, network.decode(value, features)]


def unit_features(images: int, channels: int) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(images, channels, 3, 4), dim=1)


@torch.no_grad()
@pytest.mark.parametrize("width", [8, 12, 20])
def test_a_wider_key_encoder_shows_the_other_parts_the_same(narrow: RDE_VOS, width):
    wide = widened(narrow, width)
    assert wide.config.key_width == width
    for before, after in zip(seen_by_others(narrow), seen_by_others(wide), strict=True):
        torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


def test_a_key_encoder_does_not_get_narrower(narrow):
    with pytest.raises(ValueError, match="cannot become"):
        widened(narrow, narrow.config.key_width - 1)


def test_training_changes_the_keys_and_nothing_that_other_parts_see(narrow):
    wide = widened(narrow, 2 * narrow.config.key_width)
    with torch.no_grad():
        before, key = seen_by_others(wide), wide.encode_key(torch.ones(1, 3, 64, 64)).key
    train_new_channels(wide, narrow.config.key_width)
    wide.train()
    optimizer = torch.optim.Adam([each for each in wide.parameters() if each.requires_grad], 1e-2)
    for _ in range(3):
        images, features = torch.randn(4, 3, 64, 64), unit_features(4, 8)
        features = torch.nn.functional.interpolate(features, (4, 4))
        affinity_divergence(features, wide.encode_key(images).key).backward()
        optimizer.step()
        optimizer.zero_grad()
    fresh = RDE_VOS(wide.config)  # a checkpoint has no half-frozen norms
    fresh.load_state_dict(wide.state_dict())
    with torch.no_grad():
        for old, new in zip(before, seen_by_others(fresh), strict=True):
            torch.testing.assert_close(new, old, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(fresh.encode_key(torch.ones(1, 3, 64, 64)).key, key, atol=1e-3)


def test_the_divergence_is_0_exactly_where_the_affinities_are_equal():
    features = unit_features(3, 16)
    # The similarity of Eq. 2 of keys of one length is 2·k·q / √Ck, up to a constant.
    equal = features * (16**0.5 / (2 * TEMPERATURE)) ** 0.5
    assert abs(affinity_divergence(features, equal).item()) < 1e-4
    assert affinity_divergence(features, equal.flip(0)) > 0.1
    assert affinity_divergence(features, 0.9 * equal) > 1e-3


def test_positions_of_the_same_image_do_not_count():
    features, key = unit_features(2, 16), torch.randn(2, 8, 3, 4, requires_grad=True)
    memory_of_one = affinity_divergence(features[:, :, :1, :1], key[:, :, :1, :1])
    assert memory_of_one.item() == 0  # one position in the other image takes all of the weight


def test_the_teacher_has_features_of_length_1_and_is_never_trained():
    teacher = ImageNetTeacher()
    features = teacher.train()(torch.randn(2, 3, 64, 96))
    assert features.shape == (2, 432, 4, 6)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(2, 4, 6))
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert not teacher.network.training


def test_a_pair_shows_one_video_or_one_image(clips, tmp_path):
    write_mask(tmp_path / "stills/one.png", np.ones((60, 80), np.uint8))
    Image.new("RGB", (80, 60), (200, 30, 30)).save(tmp_path / "stills/one.jpg")
    pairs = FramePairs(find_sources([clips], [tmp_path / "stills"]), crop_size=32)
    assert len(pairs) == 13
    samples = [pairs.sample(index, np.random.default_rng(0), 0.0) for index in (0, 11, 12)]
    assert all(sample["images"].shape == (2, 3, 32, 32) and sample["images"].dtype == torch.uint8 for sample in samples)
    assert "video/00000" in samples[0]["name"] and "video/00011" in samples[1]["name"]
    red, green, _ = samples[2]["images"].float().mean((0, 2, 3)).tolist()
    assert red > 2 * green  # the image is red


def test_the_script_trains_and_resumes(command: Command, narrow_checkpoint, clips, tmp_path):
    arguments = (
        "--load_network", narrow_checkpoint, "--videos", clips, "--key_width", 12, "--batch_size", 2,
        "--crop_size", 64, "--iterations", 4, "--log_every", 1, "--save_every", 2,
    )  # fmt: skip
    whole = command(SCRIPT, "--id", "whole", "--runs", tmp_path, *arguments, processes=2)
    assert whole.returncode == 0, whole.stderr
    assert "iteration 4/4" in whole.stdout and "Warning" not in whole.stderr
    trained, old = load_network(tmp_path / "whole/network.pth"), load_network(narrow_checkpoint)
    with torch.no_grad():
        for before, after in zip(seen_by_others(old), seen_by_others(trained), strict=True):
            torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4)

    again = command(SCRIPT, "--id", "whole", "--runs", tmp_path, *arguments)
    assert_refused(again, "holds a run already")
    (tmp_path / "whole/network.pth").unlink()
    (tmp_path / "whole/checkpoint_4.pth").unlink()
    resumed = command(SCRIPT, "--id", "whole", "--runs", tmp_path, "--resume", *arguments, processes=2)
    assert resumed.returncode == 0, resumed.stderr
    assert "iteration 2/4" not in resumed.stdout and "iteration 3/4" in resumed.stdout
    for name, weight in load_network(tmp_path / "whole/network.pth").state_dict().items():
        torch.testing.assert_close(weight, trained.state_dict()[name], msg=name)


@pytest.mark.parametrize(
    ("flags", "mentioned"),
    [(("--key_width", 4), "larger --key_width"), (("--key_width", 32, "--crop_size", 100), "not a multiple of 32")],
)
def test_bad_settings_are_refused(inline: Command, narrow_checkpoint, clips, tmp_path, flags, mentioned):
    result = inline(
        SCRIPT, "--id", "x", "--runs", tmp_path, "--load_network", narrow_checkpoint, "--videos", clips, *flags
    )
    assert_refused(result, mentioned)
    assert not (tmp_path / "x").exists()
