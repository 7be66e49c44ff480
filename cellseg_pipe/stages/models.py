"""What `cellseg models` prints: tables of the catalog's models."""

from __future__ import annotations

from collections.abc import Sequence

from cellseg_pipe.nets.catalog import Entry, add, list_models, load_model
from cellseg_pipe.nets.checkpoint import Model

__all__ = ["add", "details", "listing"]


def listing() -> str:
    """Return a table of all models in all folders.

    Returns
    -------
    str
        A line per file: name, origin, checksum, what it is, where it lies.
    """
    entries = list_models()
    if not entries:
        return "No models. Add a file with `cellseg models add FILE`."
    rows = [("name", "origin", "sha256", "what", "path")]
    rows += [(e.name, e.origin, e.sha256[:12], _what(e), str(e.path)) for e in entries]
    return _aligned(rows)


def details(name_or_path: str) -> str:
    """Return what is known of a model.

    Parameters
    ----------
    name_or_path : str
        A file, or the name of a model.

    Returns
    -------
    str
        A line per fact.
    """
    model = load_model(name_or_path)
    facts = [*_about_use(model), *_about_file(model)]
    return _aligned([(name, text or "not told") for name, text in facts])


def _about_use(model: Model) -> list[tuple[str, str]]:
    info = model.info
    form = info.architecture
    parts = {"residual": form.residual, "style": form.style, "concatenate": form.concatenate}
    switches = ", ".join(f"{name} {'on' if value else 'off'}" for name, value in parts.items())
    low, high = info.percentiles
    labels = info.labels_diameter_px
    window = f"{info.window_px} px" if info.window_px else ""
    below = f"below noise of {info.clear_below:g} of the range, which stays as it is"
    clear = below if info.clear_below else "restored, too"
    return [
        ("name", info.name),
        ("task", info.task),
        ("axes", f"{form.ndim}"),
        ("inputs", f"{form.n_inputs}: {', '.join(info.channels)}"),
        ("outputs", f"{form.n_outputs}"),
        ("widths", ", ".join(map(str, form.widths))),
        ("blocks", switches),
        ("diameter", f"{info.diameter_px:g} px"),
        ("training cells", f"{labels:g} px" if labels else ""),
        ("size regression", "yes" if model.size else "no"),
        ("percentiles", f"{low:g} to {high:g}"),
        ("window", window),
        *([("restores", info.restores), ("clear", clear)] if info.task == "restoration" else []),
    ]


def _about_file(model: Model) -> list[tuple[str, str]]:
    info = model.info
    n_parameters = sum(parameter.numel() for parameter in model.net.parameters())
    size_bytes = model.path.stat().st_size
    return [
        ("parameters", f"{n_parameters:,}"),
        ("licence", info.licence),
        ("training", info.training),
        ("training data", info.data_sha256),
        ("written by", info.origin),
        ("published as", model.published.name if model.published else "not a known file"),
        ("sha256", model.sha256),
        ("file", f"{model.path} ({size_bytes:,} bytes)"),
    ]


def _what(entry: Entry) -> str:
    text = entry.summary if entry.usable else f"unusable: {entry.summary[:100]}"
    return f"hidden by {entry.shadowed_by}; {text}" if entry.shadowed_by else text


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as lines, columns aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
