"""A commented experiment file for images that were looked at, as `cellseg init` writes it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from cellseg_pipe.config.images import default_name

__all__ = ["ImageFacts", "propose"]

NUCLEI = re.compile(
    r"dapi|hoechst|h33[23]\d\d|nuc|dna|draq|sytox|to-?pro|propidium|h2b|histone|405", re.I
)
ANISOTROPY_3D = 5.0  # as in segmentation.plan
COLOURS = "hematoxylin"
Choice = tuple[Any, str]  # the channels, and why


@dataclass(frozen=True)
class ImageFacts:
    """What a file says of its image.

    Parameters
    ----------
    path : str
        File, store or URL.
    name : str
        What its results are called; that of the file if empty.
    shape : tuple of int
        Along `axes`.
    axes : str
        A letter per axis, out of c, z, y, x.
    channel_names : tuple of str
        Or none.
    spacing_um : tuple of float or None
        Size of a voxel along z, y, x (or y, x).
    rgb : bool
        The channels are red, green and blue.
    dtype : str
        Type of the pixels.
    """

    path: str
    name: str
    shape: tuple[int, ...]
    axes: str
    channel_names: tuple[str, ...] = ()
    spacing_um: tuple[float, ...] | None = None
    rgb: bool = False
    dtype: str = "uint16"


def propose(
    images: Sequence[ImageFacts], *, output_dir: str = "results", model: str = "nuclei"
) -> str:
    """Write an experiment file that can be run as it is, with the choices to look at.

    Parameters
    ----------
    images : sequence of ImageFacts
        One or more.
    output_dir : str
        Folder of the results.
    model : str
        Name or file of a model.

    Returns
    -------
    str
        YAML with comments.
    """
    if not images:
        raise ValueError("an experiment needs one image or more, got none. Name their files.")
    choices = [_channels(facts) for facts in images]
    shared = all(choice == choices[0] for choice in choices)
    lines = ["# What to segment, and how. All keys: config/README.md", "images:"]
    for facts, choice in zip(images, choices, strict=True):
        lines += _image(facts, None if shared else choice)
    lines += ["output:", f"  dir: {_word(output_dir)}  # from where the run is started"]
    lines += _export(images)
    lines += ["targets:", "  nuclei:", f"    model: {_word(model)}"]
    if shared:
        channels, why = choices[0]
        lines.append(f"    channels: {_word(channels)}  # {why}")
    lines.append("    diameter_um: auto  # of a typical cell; a number saves measuring it")
    lines += ["segment:", f"  mode: auto  # {_mode(images)}", *_thresholds()]
    return "\n".join(lines) + "\n"


def _thresholds() -> list[str]:
    return [
        "  # cellprob_threshold: 0.0  # lower: more and larger cells",
        "  # flow_threshold: 0.4  # higher: keeps cells of odd shapes",
        "  # min_size_px: 15",
    ]


def _image(facts: ImageFacts, choice: Choice | None) -> list[str]:
    """Return the lines of one image."""
    size = " x ".join(str(n) for n in facts.shape)
    about = f"{', '.join(facts.axes)}: {size}, {facts.dtype}"
    lines = [f"  # {about}", f"  - path: {_word(facts.path)}"]
    name = _plain_name(facts.name)
    if name and name != default_name(facts.path):
        lines.append(f"    name: {_word(name)}")
    if choice is not None:
        lines.append(f"    channels: {_word(choice[0])}  # {choice[1]}")
    if facts.spacing_um is None:
        axes = [axis for axis in facts.axes if axis in "zyx"]
        lines.append("    # The file does not tell the size of a pixel; a diameter in µm needs it:")
        lines.append(f"    # spacing_um: [{', '.join('0.5' for _ in axes)}]  # {', '.join(axes)}")
    return lines


def _plain_name(name: str) -> str:
    """Return a name in the letters that names may have."""
    return default_name(re.sub(r"[/?#]", "_", name)) if name else ""


def _channels(facts: ImageFacts) -> Choice:
    """Return the channels in which nuclei are seen best, and why."""
    place = facts.axes.find("c")
    count = facts.shape[place] if place >= 0 else 1
    if facts.rgb:
        return [COLOURS], "colours of a stained section; of fluorescence: grey"
    if count == 1:
        return None, "the only one"
    names = facts.channel_names if len(facts.channel_names) == count else ()
    listed = ", ".join(_plain_comment(name) for name in names)
    found = next((i for i, name in enumerate(names) if NUCLEI.search(name)), None)
    if found is None:
        known = f"of {listed}" if names else f"0 to {count - 1}, without names"
        return [0], f"no name says which shows nuclei: choose, {known}"
    # A name that two channels have, or that is a word of ours, tells no channel.
    folded = [name.strip().casefold() for name in names]
    alone = folded.count(folded[found]) == 1 and names[found].strip() != ""
    return [names[found] if alone else found], f"of {listed}"


def _plain_comment(text: str) -> str:
    """Return text that stays on its line."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _mode(images: Sequence[ImageFacts]) -> str:
    """Say what mode auto will be."""
    said = dict.fromkeys(_mode_of(facts) for facts in images)
    return "; ".join(said)


def _mode_of(facts: ImageFacts) -> str:
    sizes = dict(zip(facts.axes, facts.shape, strict=True))
    if sizes.get("z", 1) == 1:
        return "2d for images y, x"
    if facts.spacing_um is None or len(facts.spacing_um) != 3:
        return "3d for volumes, as if voxels were cubes: give spacing_um, or mode planes"
    ratio = facts.spacing_um[0] / facts.spacing_um[-1]
    how = "from three sides (3d)"
    if ratio > ANISOTROPY_3D:
        how = "plane by plane, joined through z (planes)"
    return f"planes lie {ratio:.3g} pixels apart: {how}"


def _export(images: Sequence[ImageFacts]) -> list[str]:
    flat = all(dict(zip(f.axes, f.shape, strict=True)).get("z", 1) == 1 for f in images)
    formats = "[csv, geojson]" if flat else "[csv]"
    return [f"  # export: {formats}  # further files beside the OME-Zarr labels and the table"]


def _word(value: Any) -> str:
    """Return a value as YAML on one line."""
    text: str = yaml.safe_dump(
        value, default_flow_style=True, allow_unicode=True, width=float("inf")
    )
    return text.removesuffix("\n").removesuffix("\n...")
