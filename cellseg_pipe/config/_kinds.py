"""The kinds of values in an experiment file: strict numbers, words, places; nothing is guessed."""

from __future__ import annotations

import difflib
import glob
import os
import re
import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)

__all__ = [
    "Auto", "ChannelNumber", "ClusterName", "Command", "Count", "Edges", "Factor", "Folder",
    "Length", "ModelName", "NgffVersion", "Number", "Pixels", "Place", "Reach", "Section", "Share",
    "Sigma", "Size", "Switch", "Text", "Zoom",
]  # fmt: skip

LARGEST_PX = 1 << 40  # of a cell's area or volume
LONGEST_PX = 1 << 20  # of an edge
REACH_MAX = (1 << 15) - 2  # as in kernels.follow
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
SCHEMES = ("http://", "https://", "s3://")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
VARIABLE = re.compile(r"\$(\w+|\{\w*\})")
CLUSTERS = ("local", "slurm")
SCHEDULER = r"(tcp|tls)://[^\s/:]+:[0-9]+"
SAM = "cellpose-sam:"  # as in nets.sam

Auto = Literal["auto"]
# Strict: YAML's `yes` is no number, nor is "5"; .nan and .inf are none either.
Number = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-1e12, le=1e12)]
Length = Annotated[float, Field(strict=True, allow_inf_nan=False, gt=0, le=1e6)]
Sigma = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, le=1e4)]
Factor = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, le=1e6)]
Share = Annotated[float, Field(strict=True, allow_inf_nan=False, gt=0, le=1)]
Zoom = Annotated[float, Field(strict=True, allow_inf_nan=False, gt=0, le=1e4)]
Count = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]
Size = Annotated[int, Field(strict=True, ge=0, le=LARGEST_PX)]
Pixels = Annotated[int, Field(strict=True, ge=0, le=LONGEST_PX)]
Reach = Annotated[int, Field(strict=True, ge=0, le=REACH_MAX)]
Switch = Annotated[bool, Field(strict=True)]
Text = Annotated[str, Field(strict=True, min_length=1)]
ChannelNumber = Annotated[int, Field(strict=True, ge=0, le=100_000)]
Edges = Annotated[tuple[Pixels, ...], Field(min_length=2, max_length=3)]


class Section(BaseModel):
    """A part of the file; one whose keys are all commented out has the defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _nothing_is_default(cls, value: Any) -> Any:
        return {} if value is None else value


def _version(value: Any) -> Any:
    """Return the text of a version that YAML reads as a number."""
    return str(value) if isinstance(value, float) else value


NgffVersion = Annotated[
    Literal["auto", "0.4", "0.5"],
    BeforeValidator(_version),
    WithJsonSchema({"enum": ["auto", "0.4", "0.5", 0.4, 0.5]}),
]


def expanded(text: str) -> str:
    """Return a path with `~` and variables replaced; one that is not set is refused.

    Parameters
    ----------
    text : str
        As the user wrote it.

    Returns
    -------
    str
        The path.
    """
    if CONTROL.search(text):
        raise ValueError(f"needs a path on one line, got {text!r}.")
    if os.path.lexists(text):  # a name may hold a dollar
        return text
    full = os.path.expanduser(os.path.expandvars(text))
    if unset := VARIABLE.search(full):
        raise ValueError(
            f"needs variables that are set, and {unset[0]} is not. Set it or write the path."
        )
    if full.startswith("~"):
        raise ValueError(f"needs a home folder for {text!r}, and there is none. Write the path.")
    return full


def _folder_of(info: ValidationInfo) -> Path | None:
    """Return the folder of the experiment file, where it has one."""
    return (info.context or {}).get("folder")


def _located(text: str, info: ValidationInfo) -> str:
    """Return an absolute path: in the file's folder if something is there, else where we are."""
    if text.startswith(SCHEMES):
        return text
    if URL.match(text):
        raise ValueError(f"needs a path or a URL of {', '.join(SCHEMES)}, got {text!r}.")
    path, folder = expanded(text), _folder_of(info)
    if folder is not None:
        beside = os.path.join(folder, path)
        if os.path.exists(beside) or next(glob.iglob(beside, recursive=True), None) is not None:
            path = beside
    return os.path.abspath(path)


def _here(text: str) -> str:
    """Return the absolute path of what is written; relative to where we are."""
    if URL.match(text):
        raise ValueError(f"needs a folder that can be written, got the URL {text!r}.")
    return os.path.abspath(expanded(text))


def _model(text: str, info: ValidationInfo) -> str:
    """Return the name of a model, or the absolute path of its file."""
    prefix = SAM if text.startswith(SAM) else ""
    name = text.removeprefix(prefix)
    if URL.match(name):
        raise ValueError(f"needs a name or a file, got {text!r}: models are not downloaded.")
    if not re.search(r"[/~$]|\.(safetensors|pth)$", name):
        return text
    return prefix + _located(name, info)


def _cluster(text: str) -> str:
    """Return the name of a kind of cluster, or the address of a scheduler."""
    if text in CLUSTERS or re.fullmatch(SCHEDULER, text):
        return text
    near = difflib.get_close_matches(text.lower(), CLUSTERS, 1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise ValueError(
        f"needs {', '.join(CLUSTERS)} or the address of a scheduler (tcp://HOST:PORT,"
        f" tls://HOST:PORT), got {text!r}.{hint}"
    )


ClusterName = Annotated[
    Text,
    AfterValidator(_cluster),
    WithJsonSchema({"type": "string", "pattern": f"^({'|'.join(CLUSTERS)}|{SCHEDULER})$"}),
]
Place = Annotated[Text, AfterValidator(_located)]
Folder = Annotated[Text, AfterValidator(_here)]
ModelName = Annotated[Text, AfterValidator(_model)]


def _words(value: Any) -> Any:
    """Return the words of a command, whose program is found from any folder."""
    if isinstance(value, str):
        try:
            value = shlex.split(value)
        except ValueError:
            raise ValueError(f"needs quotes that are closed, got {value!r}.") from None
    if (
        not isinstance(value, list | tuple)
        or not value
        or not all(isinstance(word, str) for word in value)
    ):
        raise ValueError(f"needs a command: a line, or a list of its words, got {value!r}.")
    program = expanded(value[0])
    if not program or (os.sep in program and not os.path.isabs(program)):
        raise ValueError(f"needs the name of a program or its whole path, got {value[0]!r}.")
    return (program, *value[1:])


Command = Annotated[
    tuple[str, ...],
    BeforeValidator(_words),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
