"""The paper's recipe of each training stage (Section 4.2)."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The length, batch and schedules of a stage (Section 4.2)."""

    iterations: int
    batch_size: int  # samples of an iteration, over all processes and accumulation steps
    lr: float
    steps: tuple[int, ...]  # iterations at which the learning rate falls to a tenth
    warm_up: tuple[int, int]  # iterations between which the share of hard pixels falls

    def scaled(self, iterations: int) -> "Recipe":
        """The same recipe over another number of iterations, with stretched schedules."""
        steps, warm_up = (
            tuple(round(step * iterations / self.iterations) for step in schedule)
            for schedule in (self.steps, self.warm_up)
        )
        return replace(self, iterations=iterations, steps=steps, warm_up=warm_up)


RECIPES = {
    # static images; three frames, one object
    0: Recipe(iterations=75_000, batch_size=64, lr=2e-5, steps=(37_500,), warm_up=(5_000, 17_500)),
    # BL30K
    1: Recipe(iterations=500_000, batch_size=8, lr=1e-5, steps=(400_000,), warm_up=(20_000, 70_000)),
    # DAVIS 2017 and YouTube-VOS
    2: Recipe(iterations=75_000, batch_size=16, lr=2e-5, steps=(62_500,), warm_up=(5_000, 17_500)),
    # the same straight after stage 0: the paper's rows without BL30K
    3: Recipe(iterations=150_000, batch_size=8, lr=2e-5, steps=(125_000,), warm_up=(20_000, 70_000)),
}
