"""The memory bank of inference: a fixed number of embeddings, however long the video (Section 3.3, Table 5)."""

import re
from dataclasses import dataclass, field

import torch
from torch import Tensor

from model.network import RDE_VOS
from model.reading import Embedding, MemoryTable

# The rows of Table 5, in its notation, and the growing bank of STM and STCN.
BANKS = ("RDE", "F", "F+RDE", "L", "L+RDE", "F+L", "F+L+RDE", "2F+L", "F+2L", "2F+L+RDE", "STM")


@dataclass(frozen=True)
class BankSpec:
    """The multiplicities of the first frame (F), the latest frame (L) and the recurrent embedding (RDE) in a bank.

    The latest frame is the frame of the last update, so L like RDE changes every θ frames (Section 3.3). A multiplicity
    repeats the positions of an embedding in the softmax and in the top k. ``growing`` is STM's bank,
    which keeps and reads every update.
    """

    first: int = 0
    latest: int = 0
    recurrent: int = 0
    growing: bool = False

    @property
    def reads_updates(self) -> bool:
        """Whether updates change the embeddings that are read; the first frame never changes."""
        return bool(self.growing or self.latest or self.recurrent)

    @staticmethod
    def parse(text: str) -> "BankSpec":
        """Parse Table 5's notation, such as ``2F+L+RDE``, or ``STM``.

        Raises:
            ValueError: ``text`` names no bank.
        """
        if text == "STM":
            return BankSpec(growing=True)
        counts: dict[str, int] = {}
        for term in text.split("+"):
            match = re.fullmatch(r"([1-9]?)(F|L|RDE)", term.strip())
            if not match or match[2] in counts:
                raise ValueError(f"unknown bank {text!r}; write one like {', '.join(BANKS)}")
            counts[match[2]] = int(match[1] or 1)
        return BankSpec(counts.get("F", 0), counts.get("L", 0), counts.get("RDE", 0))


@dataclass(eq=False)  # tensors have no single truth value
class _Group:
    """The memory of the objects that entered at the same frame. These objects share all keys."""

    first: Embedding
    recurrent: Embedding
    latest: Embedding | None = None
    updates: list[Embedding] = field(default_factory=list)  # only in STM's growing bank
    # The contents in their layout for reading, cached until the next update.
    tables: dict[BankSpec, MemoryTable] = field(default_factory=dict)

    def contents(self, spec: BankSpec) -> list[tuple[Embedding, int]]:
        """The embeddings to read, each with its multiplicity.

        Before the first update there is no latest frame, so bank L reads F. F and RDE, which equals F, count once each.
        A bank without L and RDE always reads F once.
        """
        if spec.growing:
            return [(embedding, 1) for embedding in (self.first, *self.updates)]
        if self.latest is None:
            return [(self.first, max(1, bool(spec.first) + bool(spec.recurrent)))]
        first = spec.first if spec.latest or spec.recurrent else 1
        counted = [(self.first, first), (self.latest, spec.latest), (self.recurrent, spec.recurrent)]
        return [(embedding, count) for embedding, count in counted if count]

    def remove(self, channel: int) -> None:
        """Remove the value of an object from all embeddings; ``channel`` counts within the group."""

        def without(embedding: Embedding) -> Embedding:
            value = embedding.value
            return Embedding(embedding.key, torch.cat([value[:, :channel], value[:, channel + 1 :]], dim=1))

        self.first, self.recurrent = without(self.first), without(self.recurrent)
        self.latest = without(self.latest) if self.latest is not None else None
        self.updates = [without(update) for update in self.updates]
        self.tables.clear()


class MemoryBank:
    """The embeddings of all objects of one video.

    Args:
        spec: the embeddings to keep and read.
        network: reads the embeddings, and aggregates the RDE, which only banks with RDE need.

    Attributes:
        reads_updates: whether updates change what is read; see `BankSpec.reads_updates`.
    """

    def __init__(self, spec: BankSpec, network: RDE_VOS) -> None:
        self.spec = spec
        self._network = network
        self.reads_updates = spec.reads_updates
        self._groups: list[_Group] = []

    def update(self, frame: Embedding) -> None:
        """Add a frame: as the latest frame of the objects known so far, and as the first frame of new objects.

        Args:
            frame: the key [1,Ck,h,w] and the values of all objects [1,K,Cv,h,w], in the order of their entry.
        """
        known = 0
        for group in self._groups:
            count = group.first.value.shape[1]
            latest = Embedding(frame.key, frame.value[:, known : known + count])
            known += count
            group.tables.clear()
            if self.spec.growing:
                group.updates.append(latest)
                continue
            group.latest = latest
            if self.spec.recurrent:
                group.recurrent = self._network.aggregate(group.recurrent, latest)  # SAM
        if known < frame.value.shape[1]:
            first = Embedding(frame.key, frame.value[:, known:])
            self._groups.append(_Group(first=first, recurrent=first))

    def remove(self, channel: int) -> None:
        """Forget an object: its part of all embeddings. The objects after it move up by one channel.

        Args:
            channel: the number of the object, from 0, in the order of entry. An object that entered without an update
                has no embeddings.
        """
        for group in self._groups:
            count = group.first.value.shape[1]
            if channel < count:
                group.remove(channel)
                if count == 1:
                    self._groups.remove(group)
                return
            channel -= count

    def read(self, query_key: Tensor, top_k: int, spec: BankSpec | None = None) -> Tensor:
        """Read the value of every object for all positions of a query frame (Eq. 2 and 3).

        Args:
            query_key: [1,Ck,h,w].
            top_k: the number of memory positions per query position.
            spec: the embeddings to read, if not those of the bank; F can always be read.

        Returns:
            [1,K,Cv,h,w].
        """
        spec, read = spec or self.spec, []
        for group in self._groups:
            if spec not in group.tables:
                group.tables[spec] = MemoryTable(group.contents(spec), self._network.similarity)
            read.append(self._network.read(query_key, group.tables[spec], top_k))
        return torch.cat(read, dim=1)
