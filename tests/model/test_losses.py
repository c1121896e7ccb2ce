"""The forward pass of training and its losses."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from conftest import GOLDENS, SMALL, tensors
from model import RDE_VOS, load_network
from model.clip_loss import ClipLoss
from model.losses import LossTerms, bootstrapped_cross_entropy, channel_divergence, hard_fraction_at
from model.published import translate_published
from plain import train_pass
from util.training.recipe import recipe_losses


def golden_batch(golden) -> tuple[torch.Tensor, ...]:
    """Frames, masks, perturbed first masks and selector of the golden's two clips."""
    frames = torch.stack([torch.stack(tensors(clip)) for clip in golden["frames"]])
    masks = torch.from_numpy(np.concatenate([golden["mask"], golden["second_mask"]], axis=2))
    names = ("perturbed_mask", "perturbed_second_mask")
    perturbed = torch.from_numpy(np.concatenate([golden[name] for name in names], axis=2))[:, 0]
    return frames, masks, perturbed, torch.from_numpy(golden["selector"]).float()


@pytest.fixture(scope="module")
def small_batch() -> tuple[torch.Tensor, ...]:
    """The golden's clips, cropped to 64×64."""
    frames, masks, perturbed, selector = golden_batch(np.load(GOLDENS / "losses.npz"))
    return frames[..., :64, 20:84], masks[..., :64, 20:84], perturbed[..., :64, 20:84], selector


def test_golden(published_network):
    golden = np.load(GOLDENS / "losses.npz")
    with torch.no_grad():
        result = ClipLoss(published_network)(*golden_batch(golden), hard_fraction=1.0)
        terms = LossTerms(guidance="decoder_input", mask_consistency=False)
        wider = ClipLoss(published_network, terms)(*golden_batch(golden), hard_fraction=1.0)
    assert set(result.terms) == {"ce_1", "ce_2", "ce_3", "ce_4", "mc", "ug_2", "ug_4"}
    for name, term in result.terms.items():
        assert float(term) == pytest.approx(float(golden[name]), rel=1e-4), name
    for name in ("ug_2", "ug_4"):
        assert float(wider.terms[name]) == pytest.approx(float(golden[f"{name}_decoder_input"]), rel=1e-4), name
    for t in range(1, 5):
        np.testing.assert_allclose(result.masks[t].numpy(), golden[f"mask_{t}"], atol=1e-4)
    ce, ug = (
        sum(float(golden[f"{kind}_{t}"]) for t in frames) for kind, frames in (("ce", (1, 2, 3, 4)), ("ug", (2, 4)))
    )
    assert float(result.loss) == pytest.approx(ce / 2 + 10 * ug + 10 * float(golden["mc"]), rel=1e-4)


@pytest.mark.parametrize("stage", [0, 2])
def test_golden_of_the_release(published_state, tmp_path, stage):
    """Loss, terms and gradients of the release's own training code, under its names; its recipe gives the weights."""
    golden = np.load(GOLDENS / "release_loss.npz")
    golden = {name.removeprefix(f"s{stage}_"): golden[name] for name in golden if name.startswith(f"s{stage}_")}
    state = dict(published_state)
    if stage == 0:  # the release's mask encoder has one input channel less in this stage
        state["value_encoder.conv1.weight"] = state["value_encoder.conv1.weight"][:, :4]
    torch.save(state, tmp_path / "release.pth")
    network = load_network(tmp_path / "release.pth")
    batch = (torch.from_numpy(golden[name]).float() for name in ("frames", "masks", "perturbed", "selector"))
    result = ClipLoss(network, recipe_losses("release", stage))(*batch, hard_fraction=float(golden["share"]))
    assert result.loss.item() == pytest.approx(float(golden["total"]), rel=1e-5)
    for name, term in result.terms.items():
        name = f"{name}_decoder_input" if name.startswith("ug") else name
        assert float(term) == pytest.approx(float(golden[name]), rel=1e-4), name
    assert len(result.terms) == len([name for name in golden if name.startswith(("ce", "ug", "mc"))])

    norms = {name.removeprefix("gradient_norm/"): golden[name] for name in golden if name.startswith("gradient_norm")}
    ours = [next(iter(translate_published({name: state[name]}, ""))) for name in norms]
    parameters = [network.get_parameter(name) for name in ours]
    for name, gradient in zip(norms, torch.autograd.grad(result.loss, parameters), strict=True):
        if name == "value_encoder.conv1.weight":
            gradient = gradient[:, : state[name].shape[1]]
        assert float(gradient.norm()) == pytest.approx(float(norms[name]), rel=1e-3), name


@pytest.mark.parametrize(("recipe", "length"), [("paper", 5), ("release", 5), ("paper", 9)])
def test_the_plain_pass_gives_the_same_losses(small_network, small_batch, recipe, length):
    """Of both clips, one of which has an empty slot; and the same gradients of what both passes run as it is."""
    frames, masks, *rest = small_batch
    order = [0, 1, 2, 3, 4, 3, 2, 1, 0][:length]  # longer clips go back
    batch = frames[:, order], masks[:, order], *rest
    result = ClipLoss(small_network, recipe_losses(recipe, stage=2))(*batch, hard_fraction=1.0)
    loss, terms = train_pass(small_network, *batch, release=recipe == "release")
    torch.testing.assert_close(loss, result.loss)
    assert set(terms) == set(result.terms)
    for name, term in terms.items():
        torch.testing.assert_close(term.detach(), result.terms[name], msg=lambda m, name=name: f"{name}: {m}")
    parameters = [
        small_network.key_encoder.key_projection.weight,
        small_network.key_encoder.value_projection.weight,
        small_network.mask_encoder.refine.conv1.weight,
        small_network.value_aggregation.squeeze.weight,
        small_network.decoder.predict.weight,
    ]
    gradients = (torch.autograd.grad(each, parameters) for each in (loss, result.loss))
    for plain, ours in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, ours, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("flag", "off"),
    [
        ("mask_consistency", {"mc"}),
        ("unbiased_guidance", {"ug_2", "ug_4"}),
        ("stm_segmentation", {"ce_1", "ce_3"}),
    ],
)
@pytest.mark.parametrize(
    ("frame_weights", "weight"),
    [
        ("equal", {"mc": 10, "ug_2": 10, "ug_4": 10, "ce_1": 0.5, "ce_3": 0.5}),
        ("halved", {"mc": 10, "ug_2": 10, "ug_4": 10, "ce_1": 1 / 16, "ce_3": 1 / 4}),
    ],
)
def test_table_6_switches_terms_off_and_changes_no_other(small_network, small_batch, flag, off, frame_weights, weight):
    terms = LossTerms(frame_weights=frame_weights)
    with torch.no_grad():
        full = ClipLoss(small_network, terms)(*small_batch, hard_fraction=1.0)
        less = ClipLoss(small_network, replace(terms, **{flag: False}))(*small_batch, hard_fraction=1.0)
    assert set(full.terms) - set(less.terms) == off
    for name, term in less.terms.items():
        torch.testing.assert_close(term, full.terms[name])
    torch.testing.assert_close(full.loss - less.loss, sum(weight[name] * full.terms[name] for name in off))


def test_mu_is_the_weight_of_the_guidance_and_gamma_that_of_the_consistency(small_network, small_batch):
    with torch.no_grad():
        result = ClipLoss(small_network, LossTerms(mu=5.0, gamma=3.0))(*small_batch, hard_fraction=1.0)
    segmentation = sum(result.terms[f"ce_{t}"] for t in range(1, 5)) / 2
    guidance = result.terms["ug_2"] + result.terms["ug_4"]
    torch.testing.assert_close(result.loss, segmentation + 5 * guidance + 3 * result.terms["mc"])


def test_every_parameter_is_trained(small_batch):
    """Gradients reach all of the network, SAM included, and through both sides of L_UG."""
    torch.manual_seed(0)
    network = RDE_VOS(SMALL).train()
    ClipLoss(network)(*small_batch, hard_fraction=0.5).loss.backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    teacher, student = torch.randn(2, 1, 2, 8, 3, 3, requires_grad=True)
    gradients = torch.autograd.grad(channel_divergence(teacher, student), (teacher, student))
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


def test_mixed_precision_agrees(small_network, small_batch):
    with torch.no_grad():
        exact = ClipLoss(small_network)(*small_batch, hard_fraction=1.0)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = ClipLoss(small_network)(*small_batch, hard_fraction=1.0)
    assert float(mixed.loss) == pytest.approx(float(exact.loss), rel=0.05)
    assert mixed.loss.dtype == torch.float32


def test_bootstrapping_keeps_the_hardest_pixels_of_each_clip():
    torch.manual_seed(0)
    logits, target = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
    pixel = -logits.log_softmax(1).gather(1, target[:, None]).flatten(1)
    torch.testing.assert_close(bootstrapped_cross_entropy(logits, target, 1.0), pixel.mean())
    hardest = pixel.sort(descending=True).values[:, :5]
    torch.testing.assert_close(bootstrapped_cross_entropy(logits, target, 0.25), hardest.mean())


def test_the_fraction_of_hard_pixels_falls_linearly():
    fractions = [hard_fraction_at(i, (20_000, 70_000)) for i in (0, 20_000, 45_000, 70_000, 500_000)]
    assert fractions == pytest.approx([1, 1, 0.575, 0.15, 0.15])
    assert [hard_fraction_at(i, (2, 2)) for i in range(4)] == [1, 1, 0.15, 0.15]


def test_recomputed_activations_give_the_same_gradients(small_network, small_batch):
    def gradients(**settings: bool) -> dict[str, torch.Tensor]:
        network = copy.deepcopy(small_network).train()
        ClipLoss(network, **settings)(*small_batch, hard_fraction=0.5).loss.backward()
        return {name: parameter.grad for name, parameter in network.named_parameters()}

    kept, recomputed = gradients(), gradients(recompute=True)
    assert all(torch.equal(gradient, recomputed[name]) for name, gradient in kept.items())
    frames, *others = small_batch
    with torch.no_grad():
        assert not ClipLoss(small_network, recompute=True)(frames, *others, hard_fraction=0.5).loss.requires_grad
