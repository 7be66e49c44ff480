"""The restored image of a unit, as its networks saw it: nothing of it is stored, so it is made."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from cellseg_pipe.report.html import escape, short
from cellseg_pipe.report.source import UnitSource
from cellseg_pipe.restoration import as_type, restore_plan_from_json, restored_source
from cellseg_pipe.stages.networks import restorer_of_facts
from cellseg_pipe.stages.pixels import source_of_image

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cellseg_pipe.geometry import Box
    from cellseg_pipe.segmentation.plan import ImageSource

__all__ = ["restored_image", "restored_pixels", "restored_words"]

log = logging.getLogger(__name__)

CANNOT = (OSError, ValueError, RuntimeError, MemoryError)
NOT_SHOWN = "%s: the restored image is not shown: %s"
OF_FILTER = {"gaussian": ("sigma", "sigma_px"), "median": ("edge", "size_px")}


def restored_image(unit: UnitSource) -> ImageSource | None:
    """Return the restored image of a unit.

    Parameters
    ----------
    unit : UnitSource
        The unit.

    Returns
    -------
    ImageSource or None
        None where nothing is restored, or the image or the network is not there any more.
    """
    planned = unit.planned.get("plan", {})
    # What a small image depends on is kept in one piece.
    facts: dict[str, Any] = planned if "restoring" in planned else unit.planned
    if "restoring" not in facts or unit.image is None:
        return None
    plan = restore_plan_from_json(facts["restoring"])
    if not plan.channels:
        return None
    try:
        net = restorer_of_facts(facts, device="cpu")  # a job that writes a page has no GPU
    except CANNOT as error:
        log.warning(NOT_SHOWN, unit.name, error)
        return None
    return restored_source(source_of_image(unit.image), plan, net=net)


def restored_pixels(unit: UnitSource, restored: ImageSource, box: Box) -> NDArray[Any] | None:
    """Return a part of the restored image: a picture that no page has to have.

    Parameters
    ----------
    unit : UnitSource
        The unit.
    restored : ImageSource
        Its restored image.
    box : Box
        On level 0.

    Returns
    -------
    array [C, *box] or None
        In the type of the image; None where it cannot be restored here.
    """
    if unit.image is None:
        return None
    try:
        return as_type(restored.read(box), unit.image.dtype)
    except CANNOT as error:
        log.warning(NOT_SHOWN, unit.name, error)
        return None


def restored_words(units: tuple[UnitSource, ...]) -> str:
    """Return what was done to the images before a network saw them, in words.

    Parameters
    ----------
    units : tuple of UnitSource
        The units.

    Returns
    -------
    str
        HTML, a line for each kind; empty where nothing was done.
    """
    said = [_words(unit.facts["restore"]) for unit in units if "restore" in unit.facts]
    return "<br>".join(dict.fromkeys(said))


def _words(facts: dict[str, Any]) -> str:
    if facts["method"] == "network":
        model = facts["model"]
        text = f"{escape(model['name'])} <code>{escape(model['sha256'][:16])}</code>"
        if facts["scale"] != 1:
            text += f", which saw the image {short(facts['scale'])} times as large"
    else:
        name, key = OF_FILTER[facts["method"]]
        text = f"{facts['method']} filter, {name} {short(facts[key])} px"
    clear = escape(", ".join(map(str, facts.get("clear", ()))))
    if clear and not facts["channels"]:
        return f"nothing: what {text} would restore is clear (channels {clear})"
    if clear:
        text += f", but for channels {clear}, which are clear"
    if len(facts["channels"]) < facts["n_channels"]:
        text += f", channels {escape(', '.join(map(str, facts['channels'])))}"
    if facts["offset"]:
        text += f", no light below {escape(', '.join(short(n) for n in facts['offset']))}"
    return f"{text}; intensities are those of the image as it is"
