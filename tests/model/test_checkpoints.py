"""Every form of checkpoint is recognised by its content, and nothing else is taken for one."""

import copy
import os
from dataclasses import asdict

import pytest
import torch
from torch import nn

from model import RDE_VOS, NetworkConfig, load_network, save_network
from model.efficientnet import NAME
from model.initialisation import prepare_for_several_objects
from util.errors import InputError


def first_weight(network: RDE_VOS) -> torch.Tensor:
    return network.mask_encoder.backbone.conv1.weight.data


def small_with_fifth_channel(network: RDE_VOS, factor: float, **attributes: object) -> RDE_VOS:
    changed = copy.deepcopy(network)
    first_weight(changed)[:, 4] *= factor
    for name, value in attributes.items():
        setattr(changed, name, value)
    return changed


def assert_same(a: RDE_VOS, b: RDE_VOS) -> None:
    assert a.config == b.config and a.state_dict().keys() == b.state_dict().keys()
    for name, tensor in a.state_dict().items():
        assert torch.equal(tensor, b.state_dict()[name]), name


def save(content: object, folder) -> str:
    torch.save(content, folder / "checkpoint.pth")
    return folder / "checkpoint.pth"


def test_published(published_state, published_network):
    config = published_network.config
    assert (config.key_backbone, config.mask_backbone, config.aggregation) == ("resnet50", "resnet18", True)
    assert (config.key_channels, config.value_channels, config.decoder_channels) == (64, 512, (512, 256, 256))
    assert not published_network.training
    count = sum(t.numel() for n, t in published_state.items())
    biases = sum(t.numel() for n, t in published_state.items() if n.startswith("value_encoder") and is_folded(n))
    assert sum(t.numel() for t in published_network.state_dict().values()) == count - biases


def is_folded(name: str) -> bool:
    return name.endswith(".bias") and "fuser" not in name and ("conv" in name or "downsample.0" in name)


def test_biases_of_the_published_mask_encoder_fold_exactly(published_state, published_network):
    """The first convolution and norm, with the bias where it was published and folded."""
    state = {name.removeprefix("value_encoder."): tensor for name, tensor in published_state.items()}
    conv, norm = nn.Conv2d(5, 64, 7, 2, 3), nn.BatchNorm2d(64).eval()
    conv.load_state_dict({name: published_state[f"value_encoder.conv1.{name}"] for name in ("weight", "bias")})
    norm.load_state_dict({name: state[f"bn1.{name}"] for name in norm.state_dict()})
    backbone = published_network.mask_encoder.backbone
    x = torch.randn(1, 5, 32, 32)
    assert conv.bias.abs().max() > 0.01
    torch.testing.assert_close(backbone.bn1(backbone.conv1(x)), norm(conv(x)), atol=1e-5, rtol=1e-5)


def test_stcn_has_no_sam(published_state, published_network, tmp_path):
    stcn = {name: tensor for name, tensor in published_state.items() if not name.startswith("mem_compress.")}
    network = load_network(save(stcn, tmp_path))
    assert not network.config.aggregation
    assert torch.equal(network.decoder.predict.weight, published_network.decoder.predict.weight)


def test_a_single_object_network_gains_the_channel_of_the_others(published_state, tmp_path):
    single = dict(published_state)
    single["value_encoder.conv1.weight"] = published_state["value_encoder.conv1.weight"][:, :4]
    weight = load_network(save(single, tmp_path)).mask_encoder.backbone.conv1.weight
    assert torch.equal(weight[:, :4], single["value_encoder.conv1.weight"])
    assert_orthogonal(weight[:, 4])
    # It is drawn, but the same in every process and run; of weights in half precision, too.
    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in single.items()}
    again = load_network(save(half, tmp_path)).mask_encoder.backbone.conv1.weight
    assert torch.equal(again[:, 4:], weight[:, 4:])


def assert_orthogonal(channel: torch.Tensor) -> None:
    channel = channel.flatten(1)
    smaller = channel.T @ channel if len(channel) > channel.shape[1] else channel @ channel.T
    torch.testing.assert_close(smaller, torch.eye(len(smaller)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("factor", [1, 0.5, 0.003])
def test_the_fifth_channel_starts_anew_after_stage_0(small_network, tmp_path, factor):
    trained = small_with_fifth_channel(small_network, factor, single_object=True)
    save_network(trained, tmp_path / "a.pth")
    loaded = load_network(tmp_path / "a.pth")
    assert_same(loaded, trained)  # loading alone, as for evaluation or for more of stage 0, changes nothing
    random_state = torch.get_rng_state()
    started = prepare_for_several_objects(load_network(tmp_path / "a.pth"))
    assert torch.equal(torch.get_rng_state(), random_state)
    assert_orthogonal(first_weight(started)[:, 4])
    assert torch.equal(first_weight(started)[:, :4], first_weight(trained)[:, :4])
    assert_same(prepare_for_several_objects(load_network(tmp_path / "a.pth")), started)
    assert not started.single_object


def test_the_fifth_channel_of_later_stages_stays(small_network):
    """Stage 0 is in tests/model/test_train.py."""
    assert_same(prepare_for_several_objects(copy.deepcopy(small_network)), small_network)


@pytest.mark.parametrize(("factor", "dead"), [(0.003, True), (0.05, False)])
def test_a_dead_channel_shows_stage_0_in_older_files(small_network, tmp_path, factor, dead):
    save_network(small_with_fifth_channel(small_network, factor), tmp_path / "a.pth")
    content = torch.load(tmp_path / "a.pth", weights_only=True)
    del content["single_object"]
    assert load_network(save(content, tmp_path)).single_object == dead


def test_anything_else_is_refused_by_name(published_state, small_network, tmp_path):
    def refused(content: object, *mentioned: str) -> None:
        with pytest.raises(InputError) as error:
            load_network(save(content, tmp_path))
        for text in ("checkpoint.pth", *mentioned):
            assert text in str(error.value)
        assert "\n" not in str(error.value)

    incomplete = dict(published_state)
    del incomplete["decoder.pred.weight"]
    refused(incomplete, "missing decoder.predict.weight")
    refused({**published_state, "head.weight": torch.ones(1)}, "unexpected head.weight")
    reshaped = {**published_state, "decoder.pred.bias": torch.ones(2)}
    refused(reshaped, "unexpected decoder.predict.bias of shape (2,) instead of (1,)")
    refused({"model": {"a": 1}}, "state dict")
    refused([1, 2], "list")
    refused({name: torch.ones(()) for name in published_state}, "shapes")
    refused({})
    refused({"config": {"depth": 3}, "network": small_network.state_dict()}, "another version")


@pytest.mark.parametrize(
    ("key", "mask"),
    [("resnet10", "resnet34"), ("resnet50", "resnet18"), (NAME, "resnet10"), ("resnet18", NAME), (NAME, NAME)],
)
@pytest.mark.parametrize("aggregation", [True, False])
def test_the_shapes_of_a_state_dict_of_ours_say_what_it_is(key, mask, aggregation, tmp_path):
    widths = {"key_width": 64 if key == NAME else 8, "mask_width": 64 if mask == NAME else 16}  # EfficientNet has one
    config = NetworkConfig(
        key_backbone=key, mask_backbone=mask, **widths, key_channels=12, value_channels=32,
        decoder_channels=(32, 24, 16), aggregation=aggregation,
    )  # fmt: skip
    state = RDE_VOS(config).state_dict()
    network = load_network(save(state, tmp_path))
    assert network.config == config
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())


def test_a_checkpoint_cannot_run_code(tmp_path):
    class Payload:
        def __reduce__(self):
            return (os.system, ("true",))

    with pytest.raises(InputError, match="could run any program"):
        load_network(save({"a": Payload()}, tmp_path))


def test_state_dicts_of_the_projects_own_networks_are_taken(small_network, tmp_path):
    """As torch.save(network.state_dict()) writes them, also of wrapped and compiled networks; and with their config."""
    state, config = small_network.state_dict(), asdict(small_network.config)
    for prefix in ("", "module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod."):
        prefixed = {prefix + name: tensor for name, tensor in state.items()}
        for content in (prefixed, {"config": config, "network": prefixed}):
            assert_same(load_network(save(content, tmp_path)), small_network)


def test_what_is_no_checkpoint_is_named(small_network, tmp_path):
    save_network(small_network, tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:2000])
    (tmp_path / "page.pth").write_text("<!DOCTYPE html><html>Sign in</html>")
    (tmp_path / "pointer.pth").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n")
    torch.save(small_network, tmp_path / "module.pth")
    other = {"LSTT.layers.0.norm1.weight": torch.zeros(3), "encoder.features.0.0.weight": torch.zeros(1, 1, 1, 1)}
    torch.save({"state_dict": other, "optimizer": {"state": {}}, "step": 100_000}, tmp_path / "aot.pth")
    for name, text in (
        ("absent", "is missing"),
        ("cut", "not a readable checkpoint"),
        ("page", "web page"),
        ("module", "state_dict"),
        ("pointer", "Git LFS"),
        ("aot", r"not a checkpoint of RDE-VOS or STCN \(unexpected LSTT"),
    ):
        with pytest.raises(InputError, match=text) as error:
            load_network(tmp_path / f"{name}.pth")
        assert str(tmp_path / f"{name}.pth") in str(error.value)


ODD = {
    "int8": lambda weight: weight.to(torch.int8),
    "float8": lambda weight: weight.to(torch.float8_e4m3fn),
    "complex64": lambda weight: weight.to(torch.complex64),
    "sparse_coo": lambda weight: weight.to_sparse(),
    "meta": lambda weight: weight.to("meta"),
    "repeated numbers": lambda weight: torch.zeros(1).expand(weight.shape),
    "qint8": lambda weight: torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("wrapped", [True, False], ids=["with config", "state dict"])
def test_a_tensor_of_an_odd_kind_is_refused(small_network, tmp_path, kind, wrapped):
    state = small_network.state_dict()
    name = "decoder.predict.weight"
    state[name] = ODD[kind](state[name])
    content = {"config": asdict(small_network.config), "network": state} if wrapped else state
    with pytest.raises(InputError, match=f"{name} as .*{kind}.*; save its weights in fp32"):
        load_network(save(content, tmp_path))


def test_equal_training_gives_equal_files(small_network, monkeypatch, tmp_path):
    """In every process and under every name."""
    for name, process in (("a", 17), ("other", 4242)):
        monkeypatch.setattr(os, "getpid", lambda process=process: process)
        save_network(small_network, tmp_path / f"{name}.pth", iteration=1)
    assert (tmp_path / "a.pth").read_bytes() == (tmp_path / "other.pth").read_bytes()


def test_wrapped_averaged_and_half_precision_variants_are_taken(published_state, published_network, tmp_path):
    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in published_state.items()}
    averaged = {f"module.{name}": tensor for name, tensor in published_state.items()} | {"n_averaged": torch.tensor(3)}
    zeros = {name: torch.zeros_like(tensor) for name, tensor in published_state.items()}
    for content in ({"state_dict": published_state, "epoch": 3}, averaged, {"model": zeros, "ema": published_state}):
        assert_same(load_network(save(content, tmp_path)), published_network)
    loaded = load_network(save({"model": half}, tmp_path))
    assert all(parameter.dtype == torch.float32 and parameter.requires_grad for parameter in loaded.parameters())
    for name, tensor in loaded.state_dict().items():
        torch.testing.assert_close(tensor, published_network.state_dict()[name], rtol=1e-3, atol=1e-3)
    with pytest.raises(InputError, match="holds more than a network's tensors"):
        load_network(save({"one": zeros, "other": published_state}, tmp_path))
