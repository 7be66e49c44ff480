"""Whatever a file holds, it is taken or refused in plain words: no other error ever comes out."""

import copy
import math

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cellseg_pipe.config import ConfigError, dump, experiment_of, load_experiment

FULL = yaml.safe_load(
    dump(
        experiment_of({
            "images": [{"path": "/a.tif", "segment": {"niter": 5}, "spacing_um": [1, 2]}],
            "output": {"dir": "/o"},
        })
    )
)  # fmt: skip
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9),
    st.sampled_from([10**400, -(10**60), math.nan, "auto", "off", "\ud800", "a\0b", "$X",
                     "~x", b"b"]),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["path", "niter", "a\n", "dir"]), inner, max_size=3)
    ),
    max_leaves=6,
)
LEAVES = (
    "Value error", "pydantic", "errors.pydantic.dev", "Traceback", "input_value", "literal[",
)  # fmt: skip


def paths(value, path=()):
    """Yield every place in nested values."""
    yield path
    items = value.items() if isinstance(value, dict) else []
    items = enumerate(value) if isinstance(value, list) else items
    for key, item in items:
        yield from paths(item, (*path, key))


PLACES = [path for path in paths(FULL) if path]


@settings(max_examples=300)
@given(st.lists(st.tuples(st.sampled_from(PLACES), VALUES), min_size=1, max_size=3))
def test_any_value_at_any_place(changes):
    mapping = copy.deepcopy(FULL)
    for path, value in changes:
        put(mapping, path, value)
    try:
        found = experiment_of(mapping)
    except ConfigError as error:
        assert error.problems
        assert len(str(error).splitlines()) <= 1 + len(error.problems)
        assert not any(word in str(error) for word in LEAVES)
    else:
        assert experiment_of(yaml.safe_load(dump(found))) == found


def put(holder, path, value):
    for key in path[:-1]:
        known = range(len(holder)) if isinstance(holder, list) else holder
        if not isinstance(holder, dict | list) or key not in known:
            return
        holder = holder[key]
    if isinstance(holder, dict) or (isinstance(holder, list) and path[-1] in range(len(holder))):
        holder[path[-1]] = value


@settings(max_examples=300)
@given(
    st.lists(
        st.sampled_from(
            ["images:", "- path: a", "  ", "\n", "output: {dir: x}", "&a", "*a", "<<:", "[", "]",
             "{", "}", ": ", "- ", "? ", "!!set", "!x", "'", '"', "|", "#", "---", "\t", "\0", "é",
             "01", "segment:", "!!int", "!!bool", "niter", "1", ".nan", "\ufeff", "%", "@", "..."]
        ),
        max_size=25,
    )
)  # fmt: skip
def test_any_text(tmp_path_factory, parts):
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_text(" ".join(parts), encoding="utf-8", newline="")
    try:
        load_experiment(file)
    except ConfigError as error:
        assert str(error)


@given(data=st.binary(max_size=60))
def test_any_bytes(tmp_path_factory, data):
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_bytes(data)
    with pytest.raises(ConfigError):
        load_experiment(file)
