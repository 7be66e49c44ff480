"""The model card: what a network is, what it was trained on, how, how good it is, its limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cellseg_pipe.nets.checkpoint import ModelInfo
from cellseg_pipe.training.evaluate import Mean

__all__ = ["Used", "card"]


@dataclass(frozen=True)
class Used:
    """What a run used, for its card.

    Parameters
    ----------
    counts : dict of str to dict of str to int
        Images of each set: in train, tune and test, and `objects` to train on.
    licences : dict of str to str
        Of each set.
    dropped : sequence of str
        What was left out, and why.
    recipe : dict of str to str
        What was set.
    command : str
        How the run is made again.
    """

    counts: Mapping[str, Mapping[str, int]]
    licences: Mapping[str, str]
    recipe: Mapping[str, str]
    dropped: Sequence[str] = ()
    command: str = ""


@dataclass(frozen=True)
class Figures:
    """How good a network is.

    Parameters
    ----------
    title : str
        On which images, seen how.
    means : dict of str to Mean
        Per set.
    """

    title: str
    means: Mapping[str, Mean] = field(default_factory=dict)


def card(info: ModelInfo, used: Used, figures: Sequence[Figures]) -> str:
    """Write the card.

    Parameters
    ----------
    info : ModelInfo
        The network.
    used : Used
        What it was trained with.
    figures : sequence of Figures
        How good it is.

    Returns
    -------
    str
        Markdown.
    """
    parts = [_what(info), _data(used), _recipe(info, used)]
    parts += [_table(part) for part in figures if part.means]
    if not any(part.means for part in figures):
        parts.append("## Figures\nNot measured: the run has no images to tune or test on.")
    parts.append(_limits(info, used))
    return "\n\n".join(parts) + "\n"


def _what(info: ModelInfo) -> str:
    form = info.architecture
    widths = ", ".join(map(str, form.widths))
    inputs = "; ".join(f"{n}: {name}" for n, name in enumerate(info.channels))
    return (
        f"# {info.name}\n"
        f"A U-Net of the Cellpose kind in {form.ndim}D, widths {widths}, {form.n_outputs} outputs."
        f" It sees cells at {info.diameter_px:g} px; images are brought to that.\n\n"
        f"* Inputs: {inputs}. Percentiles {info.percentiles[0]:g} and {info.percentiles[1]:g}"
        " become 0 and 1.\n"
        f"* Licence of the weights: {info.licence or 'not told'}.\n"
        f"* Checksum of the list of images: `{info.data_sha256[:16]}`."
    )


def _data(used: Used) -> str:
    rows = [
        f"| {name} | {n.get('train', 0)} | {n.get('objects', 0):,} | {n.get('tune', 0)} |"
        f" {n.get('test', 0)} | {used.licences.get(name) or 'not told'} |"
        for name, n in used.counts.items()
    ]
    left = [f"* left out: {line}" for line in used.dropped]
    head = "| set | images to train | objects | to tune | to test | licence |"
    rule = "|---|---|---|---|---|---|"
    return "\n".join(["## Data", head, rule, *rows, *([""] if left else []), *left])


def _recipe(info: ModelInfo, used: Used) -> str:
    rows = [f"* {name}: {value}" for name, value in used.recipe.items()]
    again = [f"\nAgain: `{used.command}`"] if used.command else []
    return "\n".join(["## Recipe", f"{info.training}.", "", *rows, *again])


def _table(figures: Figures) -> str:
    rows = [
        f"| {name} | {mean.n_images} | {_shown(mean.ap50)} | {_shown(mean.ap75)} |"
        for name, mean in figures.means.items()
    ]
    return "\n".join(
        [
            f"## Figures: {figures.title}",
            "Mean over images of the average precision at IoU .5 and .75, with 95 % bootstrap"
            " intervals over images.",
            "",
            "| set | images | AP.5 | AP.75 |",
            "|---|---|---|---|",
            *rows,
        ]
    )


def _shown(value: tuple[float, float, float]) -> str:
    mean, low, high = value
    return f"{mean:.3f} ({low:.3f} to {high:.3f})"


def _limits(info: ModelInfo, used: Used) -> str:
    few = [f"{name} ({n.get('train', 0)})" for name, n in used.counts.items()
           if 0 < n.get("train", 0) < 10]  # fmt: skip
    lines = [
        f"* Cells much smaller or larger than {info.diameter_px:g} px after scaling are missed:"
        " give the diameter where it is known.",
        "* Kinds of images that are not in the table above are not known to work: look at a few"
        " results before trusting many.",
    ]
    if few:
        lines.append(f"* Few images were there to learn from: {', '.join(few)}.")
    return "\n".join(["## Limits", *lines])
