"""One hash of settings and of what they apply to: the name of a stage's folder."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

__all__ = ["hash_of"]


def hash_of(*parts: Any) -> str:
    """Return a hash of values that are equal where these are.

    Parameters
    ----------
    *parts
        What JSON holds, data classes, and what has a text of its own.

    Returns
    -------
    str
        12 hex digits.
    """
    text = json.dumps(parts, sort_keys=True, default=_said)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _said(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return str(value)
