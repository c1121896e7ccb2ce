"""The pictures of Tables 5 and 6: our scores beside the published ones."""

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from util.files import atomic_path

Rows = Mapping[str, tuple[Sequence[float], float | None]]  # by name: our runs, and the published score if there is one


def draw_scores(panels: Mapping[str, Rows], path: Path) -> None:
    """Plot J&F in percent: in each panel, by its title, the mean of the runs of each row, and the published figure."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    widths = [max(len(rows), 3) for rows in panels.values()]
    subplots = figure.subplots(1, len(panels), sharey=True, squeeze=False, width_ratios=widths)[0]
    for axes, (title, rows) in zip(subplots, panels.items(), strict=True):
        published = [math.nan if score is None else score for _, score in rows.values()]
        axes.plot(list(rows), published, "D", color="tab:orange", label="published, DAVIS 2017 val")
        means = [statistics.mean(runs) for runs, _ in rows.values()]
        axes.plot(list(rows), means, "o", color="tab:blue", label="ours, these weights and videos")
        for (name, (runs, _)), mean in zip(rows.items(), means, strict=True):
            axes.plot([name] * len(runs), runs, "o", color="tab:blue", alpha=0.3)
            axes.annotate(f"{mean:.1f}", (name, mean), (0, 6), textcoords="offset points", ha="center", fontsize=8)
        axes.set_xlabel(title)
        axes.tick_params("x", rotation=30)
        axes.margins(x=0.1, y=0.12)
        axes.grid(alpha=0.3)
    subplots[0].set_ylabel("J&F (%)")
    figure.legend(*subplots[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)
