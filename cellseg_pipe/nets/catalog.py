"""Where models live on this machine: found by name, listed, added; nothing is ever downloaded."""

from __future__ import annotations

import difflib
import json
import logging
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cellseg_pipe.nets._info import PUBLISHED, SAM_PREFIX, plain_name, sha256_of

if TYPE_CHECKING:
    from cellseg_pipe.nets._info import ModelInfo
    from cellseg_pipe.nets.checkpoint import Model

__all__ = [
    "SAM_PREFIX",
    "Entry",
    "Folder",
    "add",
    "folders",
    "list_models",
    "load_model",
    "resolve",
]

log = logging.getLogger(__name__)

VARIABLE = "CELLSEG_MODELS"
SHIPPED = Path(__file__).parents[1] / "models"
ALIASES = "aliases.json"  # in SHIPPED: name -> name of a shipped model
SUFFIXES = (".safetensors", "", ".pth")  # in this order within a folder
NO_MODELS = {".csv", ".json", ".log", ".md", ".npy", ".png", ".rst", ".txt", ".yaml", ".yml"}
Origin = Literal["site", "user", "shipped"]


@dataclass(frozen=True)
class Folder:
    """A folder of models.

    Parameters
    ----------
    path : path
        It need not exist.
    origin : {'site', 'user', 'shipped'}
        Whose it is.
    """

    path: Path
    origin: Origin


@dataclass(frozen=True)
class Entry:
    """A model in one of the folders.

    Parameters
    ----------
    name : str
        What `resolve` takes.
    path : path
        The file.
    origin : {'site', 'user', 'shipped'}
        Whose folder it lies in.
    sha256 : str
        Checksum of the file; empty if it cannot be read.
    summary : str
        Architecture, or why the file cannot be used.
    usable : bool
        Whether it can be loaded.
    shadowed_by : path, optional
        The file that this name means instead.
    """

    name: str
    path: Path
    origin: Origin
    sha256: str
    summary: str
    usable: bool
    shadowed_by: Path | None = None


def folders() -> tuple[Folder, ...]:
    """Return where models are looked for, in order.

    Returns
    -------
    tuple of Folder
        Those of CELLSEG_MODELS: the last is the user's, an empty one means the usual one of the
        user, those before are the site's. Then the one of this package.
    """
    entries = os.environ.get(VARIABLE, "").split(os.pathsep)
    found = [Folder(Path(entry), "site") for entry in entries[:-1] if entry]
    user = Path(entries[-1]) if entries[-1] else _usual_folder()
    if user:
        found.append(Folder(user, "user"))
    return (*found, Folder(SHIPPED, "shipped"))


def resolve(name_or_path: str | Path) -> Path:
    """Find the file of a model.

    Parameters
    ----------
    name_or_path : str or path
        A file, or the name of a model in one of the folders.

    Returns
    -------
    path
        The file.
    """
    if not str(name_or_path):
        raise ValueError("a model needs a name or a path, got nothing.")
    path = Path(name_or_path)
    if path.is_file():
        return path
    name = str(name_or_path)
    if os.path.basename(name) != name:
        raise FileNotFoundError(f"model file {path} does not exist.")
    for folder in folders():
        wanted = name if folder.origin != "shipped" else _aliases().get(name, name)
        for suffix in SUFFIXES:
            if os.path.isfile(file := folder.path / f"{wanted}{suffix}"):
                return file
    raise FileNotFoundError(_miss(name))


def load_model(name_or_path: str | Path) -> Model:
    """Load a network, ours or one of the peer's versions 1 to 3.

    Parameters
    ----------
    name_or_path : str or path
        A file, or the name of a model in one of the folders.

    Returns
    -------
    Model
        `.net` is the torch module, `.info` tells how to use it.
    """
    from cellseg_pipe.nets.checkpoint import load  # here: finding a file must not load torch

    return load(resolve(name_or_path))


def list_models() -> tuple[Entry, ...]:
    """Look at all models in all folders.

    Returns
    -------
    tuple of Entry
        In the order in which names are looked up; files that cannot be used are among them.
    """
    first: dict[str, Path] = {}
    entries = []
    for folder, name, file in _files():
        taken = first.setdefault(name, file)
        entry = _entry(folder, name, file)
        entries.append(replace(entry, shadowed_by=None if taken == file else taken))
    for alias, name in _aliases().items():
        if name in first and alias not in first:
            entries.append(_entry(Folder(SHIPPED, "shipped"), alias, first[name]))
    return tuple(entries)


def add(path: Path | str, *, name: str | None = None) -> Path:
    """Copy a model into the user's folder once it has been loaded without fault.

    Names of the peer's files may tell what they are: under another one these are written as ours.

    Parameters
    ----------
    path : path
        The file; a size regression of the peer beside it comes along.
    name : str, optional
        Under which it will be found; that of the file if not given.

    Returns
    -------
    path
        The copy.
    """
    from cellseg_pipe.nets.checkpoint import load, save

    path = Path(path)
    model = load(path)
    name = _checked_name(plain_name(path) if name is None else name)
    suffix = path.suffix if path.suffix in SUFFIXES else ""
    converted = not _is_same_as(path, f"{name}{suffix}", model.info)
    suffix = ".safetensors" if converted else suffix
    folder = next((f.path for f in folders() if f.origin == "user"), None)
    if folder is None:
        raise OSError(f"no home folder to keep models in. Set {VARIABLE} to a folder of yours.")
    target = folder / f"{name}{suffix}"
    _check_free(target, name, model.sha256)
    sizes = (path.with_name(f"{path.name}_size.npy"), path.with_name(f"size_{path.name}.npy"))
    size = next((file for file in sizes if file.is_file()), None)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if converted:
            info = replace(model.info, name=name)
            save(target, model.net, info, dtype="float32", size=model.size)
        else:
            if size:
                _copy_whole(size, folder / f"{target.name}_size.npy", sha256_of(size))
            _copy_whole(path, target, model.sha256)
    except OSError as error:
        raise OSError(
            f"cannot write to {folder}: {error.strerror or error}. Name a folder of yours last in "
            f"{VARIABLE}, or end it with '{os.pathsep}' for the usual one."
        ) from error
    if (found := resolve(name)) != target:
        log.warning("%s is hidden by %s. Choose another name.", target, found)
    return target


def _usual_folder() -> Path | None:
    """Return the user's folder by the platform's custom, or None where there is no home."""
    data = os.environ.get("XDG_DATA_HOME", "")
    if os.path.isabs(data):
        return Path(data, "cellseg_pipe", "models")
    try:
        home = Path.home()
    except RuntimeError:  # neither HOME nor an entry in the user database
        return None
    share = "Library/Application Support" if sys.platform == "darwin" else ".local/share"
    return home / share / "cellseg_pipe" / "models"


def _aliases() -> dict[str, str]:
    try:
        text = (SHIPPED / ALIASES).read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    return {str(alias): str(name) for alias, name in json.loads(text).items()}


def _files() -> Iterator[tuple[Folder, str, Path]]:
    """Yield what may be a model, in the order in which `resolve` looks."""
    for folder in folders():
        try:
            files = sorted(file for file in folder.path.iterdir() if file.is_file())
        except OSError as error:
            log.debug("no models from %s: %s", folder.path, error.strerror)
            continue
        files = [f for f in files if f.name[0] != "." and f.suffix.lower() not in NO_MODELS]
        rank = {suffix: n for n, suffix in enumerate(SUFFIXES)}
        for file in sorted(files, key=lambda f: (plain_name(f), rank.get(f.suffix, 1))):
            yield folder, plain_name(file), file


def _entry(folder: Folder, name: str, file: Path) -> Entry:
    entry = Entry(name, file, folder.origin, sha256="", summary="", usable=False)
    try:
        entry = replace(entry, sha256=sha256_of(file))
        return replace(entry, summary=load_model(file).summary, usable=True)
    except (OSError, ValueError) as error:
        about = str(error).removeprefix(f"{file}: ").removeprefix(f"{file} ")
        known = PUBLISHED.get(entry.sha256)
        return replace(entry, summary=f"{known.name}: {about}" if known else about)


def _miss(name: str) -> str:
    known = sorted({found for _, found, _ in _files()} | set(_aliases()))
    looked = ", ".join(str(folder.path) for folder in folders())
    near = difflib.get_close_matches(name, known, n=1)
    return (
        f"no model {name!r}"
        + (f"; did you mean {near[0]!r}?" if near else ".")
        + f" Known: {', '.join(known) or 'none'}. Looked in {looked}. Nothing is downloaded:"
        " add a file with `cellseg models add FILE`."
    )


def _checked_name(name: str) -> str:
    if not name or name[0] in ".-" or os.path.basename(name) != name or not name.isprintable():
        raise ValueError(f"a model needs a plain name without folders, got {name!r}.")
    if plain_name(name) != name:
        raise ValueError(f"a model's name goes without its suffix, got {name!r}.")
    if Path(name).suffix.lower() in NO_MODELS:
        raise ValueError(f"models are not looked for in *{Path(name).suffix}, got {name!r}.")
    return name


def _is_same_as(path: Path, name: str, info: ModelInfo) -> bool:
    """Tell whether a file would be read as the same network under another name."""
    from cellseg_pipe.nets.checkpoint import load

    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder, name)
        link.symlink_to(path.resolve())
        return replace(load(link).info, name=info.name) == info


def _check_free(target: Path, name: str, sha256: str) -> None:
    for suffix in SUFFIXES:
        other = target.with_name(f"{name}{suffix}")
        if os.path.isfile(other) and (other != target or sha256_of(other) != sha256):
            raise FileExistsError(f"{other} exists and is another file. Choose another --name.")


def _copy_whole(source: Path, target: Path, sha256: str) -> None:
    """Copy a file that was checked; the copy appears whole, and is what was checked."""
    name = target.with_name(f".{target.name}.{secrets.token_hex(8)}")  # its mode follows the umask
    try:
        with open(name, "xb") as file, source.open("rb") as content:
            shutil.copyfileobj(content, file)
            file.flush()
            os.fsync(file.fileno())
        if sha256_of(name) != sha256:
            raise OSError(f"{source} changed while it was copied")
        os.replace(name, target)
    except BaseException:
        name.unlink(missing_ok=True)
        raise
