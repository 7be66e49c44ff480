"""Reads YAML: plain values and the line of each key. What YAML would take silently is a problem."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import yaml

from cellseg_pipe.config._problems import ConfigError, Key, Problem

__all__ = ["Source", "plain", "read_yaml"]

TAG = "tag:yaml.org,2002:"
REPEATS_MAX = 20_000  # values that come by an alias: these can make a small file endless
NUMBERS = tuple(f"{TAG}{kind}" for kind in ("int", "float", "bool", "null"))
# Whole numbers that are not what they look like: 010 is 8, and 1:30 is 90.
ODD = re.compile(r"[-+]?0_*[0-9_]+|[-+]?[0-9_]+(:[0-9_.]+)+")


@dataclass(frozen=True)
class Source:
    """A file as it was read.

    Parameters
    ----------
    file : path, optional
        Where; none for values that come from elsewhere.
    data : any
        Plain values.
    lines : dict
        Line of each key, from 1.
    problems : list of Problem
        Of the file as such.
    """

    # Never compared: two experiments are equal wherever they come from.
    file: Path | None = field(default=None, compare=False)
    data: Any = field(default=None, compare=False, repr=False)
    lines: dict[Key, int] = field(default_factory=dict, compare=False, repr=False)
    problems: list[Problem] = field(default_factory=list, compare=False, repr=False)


def read_yaml(file: Path) -> Source:
    """Read one document.

    Parameters
    ----------
    file : path
        In UTF-8.

    Returns
    -------
    Source
        Keys given twice and the like are among its problems.
    """
    if not file.is_file():
        kind = "is a folder" if file.is_dir() else "does not exist"
        raise FileNotFoundError(f"experiment file {file} {kind}. Name a YAML file.")
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = file.read_bytes()[: error.start].count(b"\n") + 1
        raise ConfigError(f"{file}:{line}: needs text in UTF-8, got other bytes.") from None
    try:
        # Not libyaml: it crashes on what is nested too deeply.
        node = yaml.compose(text, yaml.SafeLoader)
        reader = _Reader()
        data = reader.value(node, ()) if node is not None else None
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}:{_syntax(error, text)}") from None
    except RecursionError:
        raise ConfigError(f"{file}: needs an experiment, got values nested too deeply.") from None
    return Source(file, data, reader.lines, reader.problems)


def _syntax(error: yaml.YAMLError, text: str) -> str:
    """Return line, column and cause of what is no YAML."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is None:  # a character that no text has
        place = getattr(error, "position", 0)
        line, column = text.count("\n", 0, place), place - text.rfind("\n", 0, place) - 1
        said = "a character that is no text"
    else:
        line, column = mark.line, mark.column
        said = getattr(error, "problem", None) or str(error)
    rows = text.splitlines()
    tab = "\t" in said or (line < len(rows) and re.match(r" *\t", rows[line]))
    hint = " Indent by spaces, not by tabs." if tab else " Quote values that hold : # [ { or @."
    return f"{line + 1}:{column + 1}: is no YAML: {' '.join(said.split())}.{hint}"


class _Reader:
    """Builds values from nodes and keeps the lines."""

    def __init__(self) -> None:
        self.lines: dict[Key, int] = {(): 1}
        self.problems: list[Problem] = []
        self.open: set[int] = set()
        self.seen: set[int] = set()
        self.repeats = 0

    def value(self, node: yaml.Node, path: Key) -> Any:
        """Return what a node says."""
        self.repeats += id(node) in self.seen
        self.seen.add(id(node))
        if self.repeats > REPEATS_MAX or id(node) in self.open:
            raise RecursionError
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, path)
        if node.tag not in (f"{TAG}map", f"{TAG}seq"):
            self.problem(node, path, f"needs plain values, got the tag {node.tag}. Leave it out.")
        self.open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self.mapping(node, path)
            for number, item in enumerate(node.value):
                self.lines[(*path, number)] = item.start_mark.line + 1
            return [self.value(item, (*path, n)) for n, item in enumerate(node.value)]
        finally:
            self.open.discard(id(node))

    def scalar(self, node: yaml.ScalarNode, path: Key) -> Any:
        """Return a number, text, true, false or None; dates stay text."""
        if node.tag in (f"{TAG}timestamp", f"{TAG}str", f"{TAG}value"):
            return node.value
        if node.tag == f"{TAG}int" and ODD.fullmatch(node.value) and node.value.strip("+-0"):
            self.problem(node, path, f"needs a plain number, got {node.value}, which YAML reads as"
                         " another one. Leave out leading zeros and colons.")  # fmt: skip
        if node.tag not in NUMBERS:
            self.problem(node, path, f"needs a plain value, got the tag {node.tag}. Leave it out.")
            return None
        try:
            return yaml.constructor.SafeConstructor().construct_object(node)
        except (LookupError, ValueError):  # a tag that does not fit, more digits than Python takes
            self.problem(node, path, f"needs a plain value, got {node.value[:32]!r}.")
            return None

    def mapping(self, node: yaml.MappingNode, path: Key) -> dict[Any, Any]:
        """Return keys and values; a key of its own goes before one that is merged."""
        own: dict[str, tuple[Any, yaml.Node]] = {}
        first: dict[str, int] = {}
        merged: dict[Any, Any] = {}
        for _, value_node in (pair for pair in node.value if pair[0].tag == f"{TAG}merge"):
            merged = {**self.merged(value_node, path), **merged}
        for key_node, value_node in node.value:
            if key_node.tag == f"{TAG}merge":
                continue
            line, key = key_node.start_mark.line + 1, self.key(key_node, path)
            name = str(key)
            if name in own:
                self.problem(key_node, (*path, name), f"is given twice, in lines {first[name]} and"
                             f" {line}. Leave one.")  # fmt: skip
            own[name], first[name] = (key, value_node), first.get(name, line)
            self.lines[(*path, name)] = line
        return merged | {key: self.value(item, (*path, n)) for n, (key, item) in own.items()}

    def key(self, node: yaml.Node, path: Key) -> Any:
        """Return a key; what is no text is left to `plain`."""
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, path)
        self.problem(node, path, "needs text as a key, got a list or mapping.")
        return f"key {node.start_mark.index}"

    def merged(self, node: yaml.Node, path: Key) -> dict[Any, Any]:
        """Return what `<<` brings: of several mappings the first that has a key wins."""
        parts = node.value if isinstance(node, yaml.SequenceNode) else [node]
        found: dict[Any, Any] = {}
        for part in parts:
            if isinstance(part, yaml.MappingNode):
                found = {**self.value(part, path), **found}
            else:
                self.problem(part, path, "needs the alias of a mapping after <<, as *name.")
        return found

    def problem(self, node: yaml.Node, path: Key, text: str) -> None:
        """Note what is wrong."""
        self.problems.append(Problem(path, text, line=node.start_mark.line + 1))


def plain(value: Any, path: Key = ()) -> tuple[Any, list[Problem]]:
    """Return mappings as dicts, sequences as lists, dates and paths as text.

    Parameters
    ----------
    value : any
        From a file, or from another program that read it.
    path : tuple of str and int
        Keys that lead to it.

    Returns
    -------
    value : any
        A copy, all keys as text.
    problems : list of Problem
        The keys that were no text.
    """
    if isinstance(value, Mapping):
        found: dict[str, Any] = {}
        problems = []
        for key, item in value.items():
            if not isinstance(key, str):
                problems.append(_no_key(key, path))
            found[str(key)], more = plain(item, (*path, str(key)))
            problems += more
        return found, problems
    if isinstance(value, list | tuple):
        pairs = [plain(item, (*path, number)) for number, item in enumerate(value)]
        return [item for item, _ in pairs], [p for _, more in pairs for p in more]
    if isinstance(value, date | PathLike):
        return (value.isoformat() if isinstance(value, date) else fspath(value)), []
    return value, []


def _no_key(key: Any, path: Key) -> Problem:
    said = {"True": "true", "False": "false", "None": "null"}.get(str(key), str(key)[:32])
    return Problem((*path, str(key)), f"needs text as a key, got {said}. Quote it.")
