"""An experiment as normalised YAML, and the schema by which editors check the file."""

from __future__ import annotations

import json
from typing import Any

import yaml

from cellseg_pipe.config.experiment import Experiment

__all__ = ["dump", "schema", "schema_text"]


class _Dumper(yaml.SafeDumper):
    """Writes lists of numbers and names on one line, and repeats values instead of naming them."""

    def ignore_aliases(self, data: Any) -> bool:
        """Return True: an alias in a file is hard to read."""
        return True


def _sequence(dumper: _Dumper, data: list[Any]) -> Any:
    flat = not any(isinstance(item, dict | list) for item in data)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=flat)


_Dumper.add_representer(list, _sequence)


def dump(experiment: Experiment) -> str:
    """Write everything that is in effect.

    Parameters
    ----------
    experiment : Experiment
        With absolute paths.

    Returns
    -------
    str
        YAML that gives an equal experiment, read from any folder.
    """
    values = experiment.model_dump(mode="json")
    values["images"] = [
        image.model_dump(mode="json", exclude_none=True) | _own(image)
        for image in experiment.images
    ]
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def _own(image: Any) -> dict[str, Any]:
    """Return the sections of an image with the keys that were given alone."""
    parts = {"segment": image.segment, "normalise": image.normalise}
    return {
        name: part.model_dump(mode="json", exclude_unset=True)
        for name, part in parts.items()
        if part is not None
    }


def schema() -> dict[str, Any]:
    """Return the JSON schema of the file, with a description of each key.

    Returns
    -------
    dict
        For editors; what does not fit together only the loading finds.
    """
    about = Experiment.model_json_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Experiment file of cellseg_pipe",
        **{key: value for key, value in _tidy(about).items() if key != "title"},
    }


def _tidy(part: Any) -> Any:
    """Return a part of a schema without titles that only repeat the key; one-line descriptions."""
    if isinstance(part, list):
        return [_tidy(item) for item in part]
    if not isinstance(part, dict):
        return part
    found = {}
    for key, value in part.items():
        if key == "title" and isinstance(value, str):
            continue
        is_text = key == "description" and isinstance(value, str)
        found[key] = " ".join(value.split()) if is_text else _tidy(value)
    return found


def schema_text() -> str:
    """Return the schema as it lies in workflow/schemas/config.schema.json.

    Returns
    -------
    str
        JSON.
    """
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"
