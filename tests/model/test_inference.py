"""The engine: every bank against the plain formulas, late objects, skipped frames, and what it refuses."""

import copy
import gc

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from conftest import draw_clip, tensors
from dataset.files.images import to_tensor
from model import RDE_VOS
from model.fast import fast_network
from model.inference import InferenceCore, pad_to_stride
from model.memory import BANKS, BankSpec
from model.reading import Embedding, MemoryTable, read
from model.updates import FixedInterval, confirmed
from plain import segment

# Odd sizes, sizes below one stride, and multiples of it.
SIZES = {1: (37, 51), 2: (48, 80), 5: (65, 33)}


def run(core: InferenceCore, images: list[Tensor], masks: dict[int, Tensor]) -> list[Tensor]:
    return [core.step(image, masks.get(t), last=t == len(images) - 1) for t, image in enumerate(images)]


@pytest.mark.parametrize("objects", [1, 2, 5])
@pytest.mark.parametrize("bank", BANKS)
def test_every_bank_matches_the_plain_formulas(small_network, bank, objects):
    frames, ids = draw_clip(8, *SIZES[objects], objects)
    images, masks = tensors(frames), {0: torch.from_numpy(ids[0])}
    expected = segment(small_network, images, masks, bank, mem_every=2, top_k=5)
    core = InferenceCore(small_network, bank=bank, mem_every=2, top_k=5)
    for t, probability in enumerate(run(core, images, masks)):
        torch.testing.assert_close(probability, expected[t], atol=2e-5, rtol=0, msg=lambda m, t=t: f"frame {t}: {m}")
        torch.testing.assert_close(probability.sum(0), torch.ones(SIZES[objects]))


@pytest.mark.parametrize("bank", ["2F+L+RDE", "F+L", "STM"])
def test_objects_that_enter_late_have_banks_of_their_own(small_network, bank):
    """Ids come with gaps and out of order; one is annotated again; the video starts before its first mask."""
    frames, ids = draw_clip(12, 45, 60, 4)
    ids = torch.from_numpy(ids)
    names = torch.tensor([0, 7, 200, 3, 12])
    seen = {2: [1, 2], 5: [3], 8: [4, 1]}  # which discs each frame's mask shows
    masks = {
        t: torch.where(torch.isin(ids[t], torch.tensor(discs)), names[ids[t].long()], 0) for t, discs in seen.items()
    }
    images = tensors(frames)
    expected = segment(small_network, images, masks, bank, mem_every=4, top_k=6)
    core = InferenceCore(small_network, bank=bank, mem_every=4, top_k=6)
    for t, probability in enumerate(run(core, images, masks)):
        torch.testing.assert_close(probability, expected[t], atol=2e-5, rtol=0)
    assert core.object_ids == [7, 200, 3, 12]
    assert (expected[0] == 1).all() and expected[0].shape[0] == 1


def test_objects_with_no_pixels_left_do_no_harm(small_network):
    """The first object is covered entirely by a later one."""
    frames, ids = draw_clip(6, 48, 48, 1)
    covering = torch.zeros(48, 48, dtype=torch.uint8)
    covering[:] = 2
    core = InferenceCore(small_network, mem_every=1)
    results = run(core, tensors(frames), {0: torch.from_numpy(ids[0]), 2: covering})
    assert results[2][1].max() < 1e-5
    assert all(probability.isfinite().all() for probability in results)


@pytest.mark.parametrize("bank", ["2F+L+RDE", "STM"])
def test_a_mask_can_say_that_objects_are_absent(small_network, bank):
    frames, ids = draw_clip(7, 40, 60, 3)
    images, masks = tensors(frames), {0: torch.from_numpy(ids[0]), 3: torch.from_numpy(ids[3])}
    masks[3][masks[3] != 2] = 0
    absent = {3: [1, 3]}
    masks[5], absent[5] = torch.zeros_like(masks[3]), [2]  # no object is left; nothing is said about 1 and 3
    expected = segment(small_network, images, masks, bank, mem_every=2, top_k=5, absent=absent)
    core = InferenceCore(small_network, bank=bank, mem_every=2, top_k=5)
    for t, image in enumerate(images):
        probability = core.step(image, masks.get(t), absent=absent.get(t, []), last=t == len(images) - 1)
        torch.testing.assert_close(probability, expected[t], atol=2e-5, rtol=0)
        for i in absent.get(t, []):
            assert probability[i].max() < 1e-5, f"object {i} has pixels in frame {t}"


def test_skipped_frames_change_nothing(small_network):
    """Frames that neither update the memory nor are asked for need not be seen."""
    frames, ids = draw_clip(13, 48, 64, 2)
    images, masks = tensors(frames), {0: torch.from_numpy(ids[0]), 6: torch.from_numpy(3 * (ids[6] == 1))}
    full = run(InferenceCore(small_network, mem_every=4), images, masks)
    core = InferenceCore(small_network, mem_every=4)
    looked_at = []
    for t, image in enumerate(images):
        if t in masks or core.update_due or t == 12:
            looked_at.append(t)
            assert torch.equal(core.step(image, masks.get(t)), full[t])
        else:
            core.skip()
    assert looked_at == [0, 4, 6, 10, 12]
    core = InferenceCore(small_network, mem_every=1)
    core.step(images[0], masks[0])
    with pytest.raises(ValueError, match="cannot be skipped"):
        core.skip()


def test_the_interval_counts_from_the_last_update_or_annotation():
    rule = FixedInterval(mem_every=3)
    annotated = {2, 7}
    assert [t for t in range(15) if rule.tick(t in annotated)] == [2, 5, 7, 10, 13]


def test_a_rule_of_ones_own_sees_the_probabilities_of_every_frame(small_network):
    """A rule that updates after every frame in which it finds an object gives the masks of θ = 1."""

    class WhereSeen(FixedInterval):
        looks = True
        due = False

        def tick(self, annotated=False, probability=None):
            assert probability.shape == (1, 2, 48, 48)
            return bool(annotated or probability[:, 1:].max() > 0)

    frames, ids = draw_clip(5, 48, 48, 1)
    expected, core = InferenceCore(small_network, mem_every=1), InferenceCore(small_network)
    core.rule = WhereSeen(mem_every=3)
    for t, image in enumerate(tensors(frames)):
        mask = torch.from_numpy(ids[0]) if t == 0 else None
        assert torch.equal(core.step(image, mask), expected.step(image, mask))
        assert core.update_due
    with pytest.raises(ValueError, match="cannot be skipped"):
        core.skip()


def test_an_object_that_the_first_frame_does_not_find_is_memorised_with_the_smaller_probability():
    """Pixels in a row. The first frame alone finds one pixel of object 1 and none of object 2."""
    bank = torch.tensor([[0.1, 0.0, 0.2], [0.9, 0.1, 0.0], [0.0, 0.9, 0.8]])
    first = torch.tensor([[0.8, 0.3, 0.6], [0.2, 0.6, 0.1], [0.0, 0.1, 0.3]])
    memorised = confirmed(bank.view(1, 3, 1, 3), first.view(1, 3, 1, 3))
    assert memorised.flatten().tolist() == [*bank[1].tolist(), *first[2].tolist()]


@pytest.mark.parametrize("bank", ["2F+L+RDE", "STM"])
def test_confirmed_updates_compare_the_bank_with_the_first_frame_alone(small_network, bank, monkeypatch):
    """The mask encoder gets what the rule makes of this engine's probabilities and of bank F's; here their mean."""
    monkeypatch.setattr("model.inference.confirmed", lambda probability, first: (probability + first)[:, 1:] / 2)
    memorised, encode_value = [], small_network.encode_value
    monkeypatch.setattr(small_network, "encode_value", lambda *x: (memorised.append(x[2]), encode_value(*x))[1])
    core, alone = InferenceCore(small_network, bank=bank, confirm_updates=True), InferenceCore(small_network, bank="F")
    frames, ids = draw_clip(5, 48, 48, 2)
    pairs = [[engine.step(image, None if t else ids[0]) for engine in (core, alone)]
             for t, image in enumerate(tensors(frames))]  # fmt: skip
    assert len(memorised) == 3  # frame 0 for both engines, and frame 3
    torch.testing.assert_close(memorised[2][0], sum(pairs[3])[1:] / 2, atol=1e-5, rtol=0)


def segmented_frames(core: InferenceCore) -> torch.Tensor:
    """The probabilities of a clip of one object."""
    frames, ids = draw_clip(6, 48, 48, 1)
    return torch.stack([core.step(image, None if t else ids[0]) for t, image in enumerate(tensors(frames))])


def test_a_memory_of_ones_own(small_network):
    """One that keeps the first frame and the last two updates gives the masks of STM until it forgets."""

    class FirstAndTwo:
        reads_updates = True

        def __init__(self) -> None:
            self.embeddings: list[Embedding] = []

        def update(self, frame: Embedding) -> None:
            self.embeddings = [*self.embeddings[:1], *[*self.embeddings[1:], frame][-2:]]

        def read(self, query_key: torch.Tensor, top_k: int) -> torch.Tensor:
            return MemoryTable([(embedding, 1) for embedding in self.embeddings]).read(query_key, top_k)

    core = InferenceCore(small_network, mem_every=1)
    core.memory = FirstAndTwo()
    found, expected = segmented_frames(core), segmented_frames(InferenceCore(small_network, bank="STM", mem_every=1))
    assert torch.allclose(found[:4], expected[:4], atol=1e-5) and not torch.allclose(found[5], expected[5], atol=1e-5)


def test_a_similarity_of_ones_own(small_network):
    """The network's own attribute counts in the engine, also of the fast copy, and in training's reading."""

    class Cosine:
        def __init__(self, memory_key: torch.Tensor) -> None:
            self.key = torch.nn.functional.normalize(memory_key, dim=2)

        def __call__(self, query_key: torch.Tensor) -> torch.Tensor:
            return 10 * torch.nn.functional.normalize(query_key, dim=2) @ self.key.transpose(1, 2)

    network = copy.deepcopy(small_network)
    network.similarity = Cosine
    found = segmented_frames(InferenceCore(network))
    assert not torch.allclose(found, segmented_frames(InferenceCore(small_network)), atol=1e-3)
    torch.testing.assert_close(segmented_frames(InferenceCore(fast_network(network))), found, atol=1e-3, rtol=0)

    torch.manual_seed(0)
    memory = Embedding(torch.randn(1, 4, 2, 3), torch.randn(1, 1, 5, 2, 3))
    query = torch.randn(1, 4, 1, 1)
    weights = (10 * torch.cosine_similarity(memory.key.flatten(2), query.flatten(2))).softmax(1)
    expected = (memory.value.flatten(3) * weights).sum(3)
    torch.testing.assert_close(read([memory], query, Cosine).flatten(2), expected.flatten(2))


@pytest.mark.parametrize("bank", ["2F+L+RDE", "F", "STM"])
@torch.inference_mode()
def test_remove_forgets_one_object_and_its_memory(small_network, bank):
    """Objects 1 and 2 enter first, 3 later. Each has its own part of the memory, in all groups."""
    frames, ids = draw_clip(6, 48, 48, 3)
    images, first = tensors(frames), torch.from_numpy(ids[0])
    core = InferenceCore(small_network, bank=bank, mem_every=1)
    core.step(images[0], torch.where(first == 3, 0, first))
    core.step(images[1], torch.where(torch.from_numpy(ids[1]) == 3, 3, 0))
    core.step(images[2])
    core._update_memory()
    read = core.memory.read(core.network.encode_key(pad_to_stride(images[3][None])[0]).key, 40)
    for object_id, rest in [(2, [0, 2]), (3, [0])]:
        core.remove(object_id)
        after = core.memory.read(core.network.encode_key(pad_to_stride(images[3][None])[0]).key, 40)
        assert torch.equal(after, read[:, rest])
    assert core.object_ids == [1] and core.step(images[3]).shape[0] == 2
    with pytest.raises(ValueError, match="object 2 is not tracked"):
        core.remove(2)
    core.remove(1)
    assert not core.update_due and core.step(images[4]).shape == (1, 48, 48)
    fresh = InferenceCore(small_network, bank=bank, mem_every=1)
    for engine in (core, fresh):
        engine.step(images[4], first)
    assert core.object_ids == fresh.object_ids and torch.equal(core.step(images[5]), fresh.step(images[5]))


@pytest.mark.parametrize("bank", ["2F+L+RDE", "STM"])
@torch.inference_mode()
def test_the_engine_keeps_no_frames_and_a_bank_of_constant_size(small_network, bank):
    """What tensors hold after many frames is what they held after two updates, except for STM's bank."""

    def held() -> int:
        core._update_memory()  # of the last frame, which waits for the next one
        gc.collect()
        storages = {
            t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
            for t in gc.get_objects()
            if type(t) is Tensor and not t.is_mkldnn
        }
        return sum(storages.values())

    frames, ids = draw_clip(4, 64, 64, 2)
    images = tensors(frames)
    core = InferenceCore(small_network, bank=bank, mem_every=1)
    core.step(images[0], torch.from_numpy(ids[0]))
    for t in range(3):
        core.step(images[t])
    before = held()
    for t in range(20):
        core.step(images[t % 4])
    grown = held() - before
    embedding = 4 * 4 * 4 * (16 + 2 * 32)  # bytes of a key and two values of 4×4 positions in fp32
    assert grown == (20 * embedding if bank == "STM" else 0)


def test_half_precision_agrees_with_fp32(small_network):
    frames, ids = draw_clip(8, 64, 96, 2)
    images, masks = tensors(frames), {0: torch.from_numpy(ids[0])}
    exact = run(InferenceCore(small_network), images, masks)
    mixed = run(InferenceCore(copy.deepcopy(small_network).bfloat16()), images, masks)
    for a, b in zip(exact, mixed, strict=True):
        assert b.dtype == torch.float32
        assert (a - b).abs().mean() < 0.02


def test_banks_are_parsed_from_table_5s_notation():
    assert BankSpec.parse("2F+L+RDE") == BankSpec(first=2, latest=1, recurrent=1)
    assert BankSpec.parse("F+2L") == BankSpec(first=1, latest=2)
    assert BankSpec.parse("STM") == BankSpec(growing=True)
    for wrong in ("", "F+", "0F", "F+F", "G", "2STM", "f+l"):
        with pytest.raises(ValueError, match="unknown bank"):
            BankSpec.parse(wrong)


def test_what_the_engine_refuses(small_network):
    image, mask = torch.zeros(3, 32, 48), torch.ones(32, 48, dtype=torch.uint8)
    core = InferenceCore(small_network)

    def refused(message: str, frame: object, *masks: object, **absent: list[int]) -> None:
        with pytest.raises(ValueError, match=message):
            core.step(frame, *masks, **absent)

    refused("integer ids of the frame's size", image, mask[:, :-1])
    refused("integer ids", image, mask.float())
    refused("no object", image, mask * 0)
    refused("float tensor", image[0], mask)
    refused("no mask so far has held the absent object 2", image, mask, absent=[2])
    refused(r"must be normalised .* dataset\.images\.to_tensor", torch.full_like(image, 255), mask)
    refused(r"from 0 to 1, but .* normalised", torch.full_like(image, 0.5), mask)
    refused("the id -1", image, mask.long() - 2 * (torch.arange(48) < 5))
    refused("not Image", image, Image.fromarray(mask.numpy()))
    refused(r"not Image; dataset\.images\.to_tensor", Image.new("RGB", (48, 32)), mask)
    for frame in (np.zeros((32, 48, 3), np.float32), np.zeros((32, 48), np.uint8), Image.new("RGB", (48, 32))):
        with pytest.raises(ValueError, match="uint8 RGB"):
            to_tensor(frame)
    core.step((image + 128).byte(), mask.numpy().astype(">u2"))
    refused("from 0 to 1", torch.full_like(image, 0.5))  # now without a mask
    refused("values up to nan", torch.full_like(image, float("nan")))
    refused("object 1 is absent, but has pixels", image, mask, absent=[1])
    refused("only a mask can show", image, absent=[1])
    refused("the frames before", image[:, :16])
    for wrong in ({"mem_every": 0}, {"top_k": 0}, {"bank": "X"}):
        with pytest.raises(ValueError):
            InferenceCore(small_network, **wrong)


def test_a_network_without_sam_serves_the_banks_without_rde(small_network):
    from dataclasses import replace

    network = RDE_VOS(replace(small_network.config, aggregation=False)).eval()
    with pytest.raises(ValueError, match="no SAM"):
        InferenceCore(network)
    frames, ids = draw_clip(4, 32, 32, 1)
    run(InferenceCore(network, bank="2F+L", mem_every=1), tensors(frames), {0: torch.from_numpy(ids[0])})


def test_bytes_are_taken_as_frames_and_results_may_be_changed(small_network):
    """The memory is updated after the caller has got the result."""
    frames, ids = draw_clip(5, 48, 64, 2)
    expected = run(InferenceCore(small_network, mem_every=1), tensors(frames), {0: torch.from_numpy(ids[0])})
    core = InferenceCore(small_network, mem_every=1)
    for t, frame in enumerate(frames):
        probability = core.step(torch.from_numpy(frame).permute(2, 0, 1), ids[0] if t == 0 else None)
        assert torch.equal(probability, expected[t]) and core.labels.tolist() == [0, 1, 2]
        probability.numpy().fill(0)
