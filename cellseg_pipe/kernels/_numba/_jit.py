"""Compiles loops, once per machine: explicit signatures and a cache that one process fills."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import importlib.metadata
import logging
import os
import pickle
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import numba
from llvmlite import binding
from numba import types
from numba.core import caching

log = logging.getLogger(__name__)

OPTIONS = {"nogil": True, "error_model": "numpy"}  # no fastmath, no parallel: see docs/decisions.md


def const(dtype: types.Type, ndim: int = 1) -> types.Array:
    """Return the type of a C-contiguous input, which may be read-only."""
    return types.Array(dtype, ndim, "C", readonly=True)


def out(dtype: types.Type, ndim: int = 1) -> types.Array:
    """Return the type of a C-contiguous array that the loop writes."""
    return types.Array(dtype, ndim, "C")


def loop(*signatures: tuple[types.Type, ...]) -> Callable[[Callable[..., object]], Loop]:
    """Declare a compiled loop and every argument list it takes; nothing compiles until it runs."""
    return lambda function: Loop(function, signatures)


def helper(function: Callable[..., object]) -> Callable[..., object]:
    """Declare a function that loops call; it is compiled into each of them."""
    return numba.njit(inline="never", **OPTIONS)(function)


class Loop:
    """A function with fixed signatures, compiled or read from the cache at its first call.

    Signatures are explicit so that no array can make a job compile something new: the set of
    compiled variants is known, and another argument list is an error of ours, not a slow run.
    """

    declared: ClassVar[list[Loop]] = []

    def __init__(
        self, function: Callable[..., object], signatures: tuple[tuple[types.Type, ...], ...]
    ) -> None:
        """Keep the function; compile nothing."""
        functools.update_wrapper(self, function)
        self.function = function
        self.signatures = signatures
        self.declared.append(self)

    def __call__(self, *arguments: object) -> object:
        """Run the compiled loop."""
        return self.compiled(*arguments)

    @functools.cached_property
    def compiled(self) -> Callable[..., object]:
        """The numba dispatcher, with every signature ready."""
        folder = cache_folder()
        name = f"{self.function.__module__.rpartition('.')[2]}.{self.function.__name__}"
        dispatcher = numba.njit(**OPTIONS)(self.function)
        dispatcher._cache = _Cache(self.function)
        with _only_filler(folder, name):
            for signature in self.signatures:
                dispatcher.compile(signature)
        dispatcher.disable_compile()
        return dispatcher


@contextlib.contextmanager
def _only_filler(folder: Path, name: str) -> Iterator[None]:
    """Let one process compile `name` while the others wait; no lock once it is in the cache."""
    ready = folder / f"{name}.ready"
    if ready.exists():
        yield
        return
    with contextlib.ExitStack() as held:
        try:
            lock = held.enter_context(open(folder / f"{name}.lock", "w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:  # a file system without locks, or one that is full
            log.warning("%s is compiled without a lock on %s: %s", name, folder, error)
        if not ready.exists():
            log.info("compiling %s into %s", name, folder)
        yield
        with contextlib.suppress(OSError):
            ready.touch()


@functools.cache
def cache_folder() -> Path:
    """Return the folder of this exact build on this kind of CPU; made if it can be.

    A folder that already holds the compiled loops may be read-only (a site installation, a
    container image). HOME may be read-only or missing: then a private folder under the
    temporary directory serves, one per user and machine.
    """
    for base in _bases():
        folder = base / _key()
        if (folder / "complete").exists():
            return folder
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError:
            continue
    return Path(tempfile.mkdtemp(prefix="cellseg_pipe-"))


def _bases() -> Iterator[Path]:
    """Yield the places a cache may lie, the user's wish first."""
    if wish := os.environ.get("CELLSEG_CACHE"):
        yield Path(wish)
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        yield Path(xdg) / "cellseg_pipe"
    with contextlib.suppress(RuntimeError):
        yield Path.home() / ".cache" / "cellseg_pipe"
    shared = Path(tempfile.gettempdir()) / f"cellseg_pipe-{os.getuid()}"
    with contextlib.suppress(OSError):
        shared.mkdir(mode=0o700, exist_ok=True)
        # The cache is unpickled, so a folder that another user could have filled is not trusted.
        if shared.stat().st_uid == os.getuid() and not shared.stat().st_mode & 0o022:
            yield shared


@functools.cache
def _key() -> str:
    """Return a name that changes with anything the machine code depends on."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.name.encode() + source.read_bytes())
    versions = [importlib.metadata.version(name) for name in ("numba", "llvmlite", "numpy")]
    cpu = numba.config.CPU_NAME or binding.get_host_cpu_name()
    features = numba.config.CPU_FEATURES or binding.get_host_cpu_features().flatten()
    digest.update(repr([versions, sys.version_info[:3], cpu, features]).encode())
    return digest.hexdigest()[:16]


def compile_all() -> Path:
    """Compile every declared loop into the cache and return its folder."""
    for item in Loop.declared:
        item.compiled  # noqa: B018 - reading it compiles
    (cache_folder() / "complete").touch()
    return cache_folder()


class _Locator(caching._CacheLocator):
    """Puts a function's cache into our keyed folder, whose name is its stamp."""

    def __init__(self, function: Callable[..., object]) -> None:
        """Keep what names the files."""
        self._name = function.__module__

    def ensure_cache_path(self) -> None:
        """Do nothing: the folder exists, and may rightly be read-only."""

    def get_cache_path(self) -> str:
        """Return the keyed folder."""
        return str(cache_folder())

    def get_source_stamp(self) -> str:
        """Return the key, which covers the source, versions and CPU."""
        return _key()

    def get_disambiguator(self) -> str:
        """Return the module, since function names repeat across modules."""
        return hashlib.sha256(self._name.encode()).hexdigest()[:8]

    @classmethod
    def from_function(cls, py_func: Callable[..., object], py_file: str) -> _Locator:
        """Return the locator of a function; numba's entry point."""
        return cls(py_func)


class _CacheImpl(caching.CompileResultCacheImpl):
    _locator_classes = [_Locator]


class _Cache(caching.FunctionCache):
    """Numba's function cache in our folder; a damaged or read-only one costs time, not the run."""

    _impl_class = _CacheImpl

    def load_overload(self, sig: object, target_context: object) -> object:
        """Return the compiled variant, or None where it must be compiled."""
        try:
            return super().load_overload(sig, target_context)
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            log.warning("%s cannot be read (%s): compiling again", self._cache_path, error)
            with contextlib.suppress(OSError):
                self.flush()  # a damaged index would stop the save as well
            return None

    def save_overload(self, sig: object, data: object) -> None:
        """Keep the compiled variant for other processes, where the folder can be written."""
        try:
            super().save_overload(sig, data)
        except OSError as error:
            log.warning("%s cannot be written (%s): this process only", self._cache_path, error)
