"""What was expected and what was found, in plain words, from what the models refused.

The wording of an expectation comes from the JSON schema, so the two cannot differ.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from cellseg_pipe.config._problems import Key, Problem, RuleError

__all__ = ["problems_in"]

SHOWN = 48  # characters of a value
SPOKEN_DIGITS = 30  # of a whole number
QUANTITY = re.compile(r"\s*[-+]?[\d.]+(?:e[-+]?\d+)?\s*([^\W\d]+|%)\s*", re.I)


def problems_in(error: ValidationError, data: Any, schema: dict[str, Any]) -> list[Problem]:
    """Say in plain words what the models refused, one problem for each key.

    Parameters
    ----------
    error : ValidationError
        From the models.
    data : mapping
        What they were given.
    schema : dict
        Theirs.

    Returns
    -------
    list of Problem
        Each key once.
    """
    found: dict[Key, Problem] = {}
    rules: list[Problem] = []
    for item in error.errors(include_url=False):
        path, cause = _real(item["loc"], data), item.get("ctx", {}).get("error")
        if isinstance(cause, RuleError):
            rules.extend(cause.problems)
            continue
        if item["type"] == "missing" and isinstance(_value(data, path), Mapping | None):
            key = item["loc"][-1]
            text = f"is missing: it needs {_expected(_fragment(schema, (*path, key)), schema)}."
            path = (*path, key)
        elif item["type"] == "extra_forbidden":
            text = _unknown(path, schema)
        elif isinstance(cause, ValueError):
            text = str(cause)
        else:
            text = _unfit(_value(data, path), _fragment(schema, path), schema)
        found.setdefault(path, Problem(path, text))
    # A list with one wrong item fails as the other kinds of its union too: the item says more.
    inner = {path[:end] for path in found for end in range(len(path))}
    return [problem for path, problem in found.items() if path not in inner] + rules


def _real(loc: Sequence[str | int], data: Any) -> Key:
    """Return the keys of a place that are in the data, without the names of a union's kinds."""
    path: list[str | int] = []
    for part in loc:
        inside = isinstance(data, Mapping) and part in data
        if inside or (isinstance(data, list) and isinstance(part, int) and part < len(data)):
            path.append(part)
            data = data[part]
    return tuple(path)


def _value(data: Any, path: Key) -> Any:
    for key in path:
        data = data[key]
    return data


def _fragment(schema: dict[str, Any], path: Key) -> dict[str, Any]:
    """Return the part of the schema that a key leads to; empty where it leads nowhere."""
    parts = [schema]
    for key in path:
        steps = (_step(kind, key) for part in parts for kind in _kinds(part, schema))
        parts = [part for part in steps if part is not None]
    return {"anyOf": parts} if len(parts) > 1 else parts[0] if parts else {}


def _kinds(part: dict[str, Any], schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the alternatives of a part, references replaced."""
    if "$ref" in part:
        return _kinds(schema["$defs"][part["$ref"].rpartition("/")[2]], schema)
    if "anyOf" in part:
        return [kind for inner in part["anyOf"] for kind in _kinds(inner, schema)]
    return [part]


def _step(part: dict[str, Any], key: str | int) -> dict[str, Any] | None:
    if isinstance(key, int):
        first = part.get("prefixItems", [])
        return first[key] if key < len(first) else part.get("items")
    known = part.get("properties", {})
    more = part.get("additionalProperties")
    return known.get(key) or (more if isinstance(more, dict) else None)


def _expected(part: dict[str, Any], schema: dict[str, Any]) -> str:
    """Say what a part of the schema takes."""
    said = dict.fromkeys(_kind(kind, schema) for kind in _kinds(part, schema))
    words = list(said)
    return ", ".join(words[:-1]) + " or " + words[-1] if len(words) > 1 else words[0]


def _kind(part: dict[str, Any], schema: dict[str, Any]) -> str:
    if "const" in part:
        return str(part["const"])
    if "enum" in part:
        words = [value for value in part["enum"] if isinstance(value, str)]
        return f"one of {', '.join(words)}"
    kind = part.get("type")
    if kind in ("number", "integer"):
        return f"{'a number' if kind == 'number' else 'a whole number'}{_limits(part)}"
    if kind == "array":
        return _list(part, schema)
    plain = {"boolean": "true or false", "string": "text", "null": "null"}
    first = part.get("required", ["key"])[0]
    return plain.get(str(kind), f"keys with values ({first}: ...)")


def _limits(part: dict[str, Any]) -> str:
    low, above = part.get("minimum"), part.get("exclusiveMinimum")
    high = part.get("maximum")
    if low is not None and low < 0:
        return ""
    first = f" above {above:g}" if above is not None else f" of {low:g} or more"
    return first if high is None or high > 1e4 else f"{first}, at most {high:g}"


def _list(part: dict[str, Any], schema: dict[str, Any]) -> str:
    if "prefixItems" in part:
        return f"a list of {len(part['prefixItems'])} numbers, as [1, 99]"
    least, most = part.get("minItems"), part.get("maxItems")
    number = f" {least} to {most}" if most == 3 else ""
    items = _kinds(part.get("items", {}), schema)
    words = [value for item in items for value in item.get("enum", [])]
    if number:
        inner = "numbers, one per axis"
    elif words:
        inner = f"words out of {', '.join(words)}"
    elif items[0].get("type") == "object":
        inner = f"entries ({items[0]['required'][0]}: ...)"
    else:
        inner = "names or numbers"
    return f"a list of{number} {inner}"


def _unfit(value: Any, part: dict[str, Any], schema: dict[str, Any]) -> str:
    """Say that a value is none of what a part of the schema takes, and how to mend it."""
    kinds = _kinds(part, schema) if part else []
    types = {kind.get("type") for kind in kinds}
    text = f"needs {_expected(part, schema) if part else 'another value'}, got {_shown(value)}."
    if isinstance(value, bool) and "boolean" not in types:
        quote = " Quote it." if "string" in types else ""
        return f"{text} YAML reads yes, no, on and off as true and false.{quote}"
    if isinstance(value, str):
        words = [word for kind in kinds for word in kind.get("enum", [kind.get("const")]) if word]
        return text + _mended(value, [w for w in words if isinstance(w, str)], types)
    most = max((kind.get("maximum", 0) for kind in kinds), default=0)
    if isinstance(value, int | float) and value > most > 0:
        return f"{text} The largest is {most:.15g}."
    if isinstance(value, int | float) and "string" in types and not {"number", "integer"} & types:
        return f"{text} Quote it."
    return text


def _mended(value: str, words: list[str], types: set[Any]) -> str:
    """Return a hint on text where something else was wanted."""
    numbers = bool({"number", "integer"} & types)
    try:
        number = float(value)
    except ValueError:
        number = None
    if numbers and number is not None and math.isfinite(number):
        short = int(number) if number.is_integer() else number
        return f" As a number it is written {short!r}, without quotes."
    if numbers and (unit := QUANTITY.fullmatch(value)):
        return f" Leave out {unit[1]!r}: the key's name says the unit."
    near = difflib.get_close_matches(value.lower(), words, n=1)
    return f" Did you mean {near[0]}?" if near else ""


def _shown(value: Any) -> str:
    """Return a value as short text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "nothing (null)"
    if isinstance(value, int) and abs(value) >= 10**SPOKEN_DIGITS:
        return f"a whole number of more than {SPOKEN_DIGITS} digits"
    if isinstance(value, Mapping):
        return "keys with values" if value else "an empty mapping"
    text = repr(value) if isinstance(value, str | float | int | list) else type(value).__name__
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def _unknown(path: Key, schema: dict[str, Any]) -> str:
    """Say that a key is unknown, and which one is meant."""
    key = str(path[-1])
    if key == "restore" and path[0] in ("images", "targets"):
        return "is no key here: it is one for all images. Make an experiment for each kind of them."
    around = [k for kind in _kinds(_fragment(schema, path[:-1]), schema)
              for k in kind.get("properties", {})]  # fmt: skip
    near = difflib.get_close_matches(key.lower(), around, n=1)
    if near:
        return f"is no known key. Did you mean {near[0]}?"
    homes = [name for name in schema["properties"] if key in _keys_below(name, schema)]
    if homes:
        home = {"targets": "a target", "images": "an image"}.get(homes[0], homes[0])
        return f"is no known key here. It is one of {home}."
    return f"is no known key. Known here: {', '.join(around)}."


def _keys_below(section: str, schema: dict[str, Any]) -> set[str]:
    """Return the keys of a section; of images and targets those of each of them."""
    item: dict[str, Key] = {"images": ("images", 0), "targets": ("targets", "")}
    kinds = _kinds(_fragment(schema, item.get(section, (section,))), schema)
    return {key for kind in kinds for key in kind.get("properties", {})}
