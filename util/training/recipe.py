"""The recipe of each training stage (Section 4.2), and the losses of the paper and of the authors' release."""

from dataclasses import dataclass, replace

from model.losses import LossTerms


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The length, batch and schedules of a stage (Section 4.2)."""

    iterations: int
    batch_size: int  # samples per iteration, over all processes and accumulation steps
    lr: float
    lr_steps: tuple[int, ...]  # iterations at which the learning rate is divided by 10
    warm_up: tuple[int, int]  # iterations between which the hard fraction falls

    def scaled(self, iterations: int) -> "Recipe":
        """The same recipe for another number of iterations, with scaled schedules."""
        lr_steps, warm_up = (
            tuple(round(step * iterations / self.iterations) for step in schedule)
            for schedule in (self.lr_steps, self.warm_up)
        )
        return replace(self, iterations=iterations, lr_steps=lr_steps, warm_up=warm_up)


RECIPES = {
    # static images; three frames, one object
    0: Recipe(iterations=75_000, batch_size=64, lr=2e-5, lr_steps=(37_500,), warm_up=(5_000, 17_500)),
    # BL30K
    1: Recipe(iterations=500_000, batch_size=8, lr=1e-5, lr_steps=(400_000,), warm_up=(20_000, 70_000)),
    # DAVIS 2017 and YouTube-VOS
    2: Recipe(iterations=75_000, batch_size=16, lr=2e-5, lr_steps=(62_500,), warm_up=(5_000, 17_500)),
    # the same, directly after stage 0: the paper's rows without BL30K
    3: Recipe(iterations=150_000, batch_size=8, lr=2e-5, lr_steps=(125_000,), warm_up=(20_000, 70_000)),
}

# What a CPU can train: flags of train.py. Measured with the small network, whose iterations take 8 s of one core.
CPU_FLAGS = "--crop_size 192 --batch_size 2 --iterations 200"
CPU_TIME = "half an hour"

# The names for --recipe: the paper's losses, and those of the authors' release, which differs from its paper. The
# release also has another mask encoder (`MASK_BACKBONES`), with four input channels in stage 0. This needs no setting:
# here the fifth channel's input is 0 in stage 0, so it gets no gradient, and the next stage reinitialises the channel
# (`model.initialisation.prepare_for_several_objects`). Only the scale of the fourth channel's initial values differs,
# because here both channels are initialised together.
LOSSES = {
    "paper": LossTerms(),
    "release": LossTerms(frame_weights="halved", guidance="decoder_input"),
}
MASK_BACKBONES = {"paper": "resnet50", "release": "resnet18"}  # of a new network


def recipe_losses(name: str, stage: int) -> LossTerms:
    """The loss terms of a recipe, ``paper`` or ``release``, in a stage."""
    if (name, stage) == ("release", 2):  # the run that the release's README reports; 10 in all other runs
        return replace(LOSSES[name], mu=5.0, gamma=5.0)
    return LOSSES[name]
