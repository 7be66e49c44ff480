"""The name of every file and folder of a run. Names only: nothing is opened or made here."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

__all__ = ["IMAGES", "RunPaths", "StagePaths", "UnitPaths", "safe_name"]

NAME_BYTES = 251  # file systems take 255
READABLE_BYTES = 80
DIGEST = re.compile(r"[0-9a-f]{12}")
PLAIN = re.compile(r"\w[\w.+-]*")
STAGE = re.compile(r"[a-z][a-z0-9_]*")
# 0003.2, 0003.2.bin, 0003.2.jsonl: batch 3, token 2.
ATTEMPT = re.compile(r"(\d{4,})\.(\d+)(?:\.bin|\.jsonl)?")
IMAGES = "images.json"
# What lies beside the folders of the units; compared without case, as some file systems do.
RESERVED = {
    *("cells.parquet", "config.yaml", "failed.json", "plan.json", "report.html", "summary.json"),
    *("benchmarks.parquet", "logs", "report", "runs"),
}


def safe_name(name: str) -> str:
    """Return the folder name of an image or unit; no two names share one.

    Parameters
    ----------
    name : str
        Anything but nothing, `.` and `..`.

    Returns
    -------
    str
        The name itself where every file system and shell takes it; else what is readable of it,
        `~` and ten digits of its sha256. A name that is kept holds no `~`, so the two cannot meet.
    """
    if name in ("", ".", ".."):
        raise ValueError(f"a folder needs a name that is not empty, '.' or '..', got {name!r}.")
    composed = unicodedata.normalize("NFC", name)
    if (
        PLAIN.fullmatch(name)
        and name == composed  # macOS takes both spellings of an accent for one
        and len(name.encode()) <= NAME_BYTES
        and name.casefold() not in RESERVED
    ):
        return name
    readable = re.sub(r"[^\w.+-]+", "_", composed).strip("_.+-")
    readable = readable.encode()[:READABLE_BYTES].decode("utf-8", "ignore") or "image"
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{readable}~{digest[:10]}"


@dataclass(frozen=True)
class RunPaths:
    """The files of a run.

    Parameters
    ----------
    root : path
        The output folder.
    """

    root: Path

    def __post_init__(self) -> None:
        """Take a str as well."""
        object.__setattr__(self, "root", Path(self.root))

    @property
    def config(self) -> Path:
        """The experiment as it ran."""
        return self.root / "config.yaml"

    @property
    def plan(self) -> Path:
        """What the result depends on, for all units."""
        return self.root / "plan.json"

    @property
    def summary(self) -> Path:
        """What came out, written last."""
        return self.root / "summary.json"

    @property
    def cells(self) -> Path:
        """The table of the cells of all units, where there are several: a folder of parts."""
        return self.root / "cells.parquet"

    @property
    def benchmarks(self) -> Path:
        """The table of all jobs: what each took."""
        return self.root / "benchmarks.parquet"

    @property
    def failed(self) -> Path:
        """What could not be segmented, and why; not there if there is nothing of the kind."""
        return self.root / "failed.json"

    @property
    def headers(self) -> Path:
        """What image files say of themselves."""
        return self.runs / "headers.json"

    @property
    def report(self) -> Path:
        """The page for people."""
        return self.root / "report.html"

    @property
    def logs(self) -> Path:
        """Folder of the logs."""
        return self.root / "logs"

    @property
    def runs(self) -> Path:
        """Folder of all that is made on the way."""
        return self.root / "runs"

    @property
    def locks(self) -> Path:
        """Folder of the locks; hidden, so that no unit is called like it."""
        return self.runs / ".locks"

    @property
    def run_lock(self) -> Path:
        """What a `RunLock` of this output takes."""
        return self.locks / "run"

    @property
    def dashboards(self) -> Path:
        """Folder of what says where work is shown while it runs."""
        return self.runs / "dashboards"

    @property
    def caches(self) -> Path:
        """Folder of what programs keep between runs."""
        return self.runs / ".cache"

    def unit(self, name: str) -> UnitPaths:
        """Return the files of a unit.

        Parameters
        ----------
        name : str
            As in the experiment.

        Returns
        -------
        UnitPaths
            In this run.
        """
        return UnitPaths(self, name)


@dataclass(frozen=True)
class UnitPaths:
    """The files of one image and target.

    Parameters
    ----------
    run : RunPaths
        The run.
    name : str
        As in the experiment; its folders have its `safe_name`.
    """

    run: RunPaths
    name: str

    def __post_init__(self) -> None:
        """Check the name once."""
        safe_name(self.name)

    @property
    def root(self) -> Path:
        """Folder of what is published."""
        return self.run.root / safe_name(self.name)

    @property
    def labels(self) -> Path:
        """The label store, published when it is whole."""
        return self.root / "labels.ome.zarr"

    @property
    def cells(self) -> Path:
        """Folder of the parts of the table of cells."""
        return self.root / "cells.parquet"

    @property
    def outlines(self) -> Path:
        """The outlines of cells, where they are asked for."""
        return self.root / "outlines.parquet"

    @property
    def conflicts(self) -> Path:
        """The table of what could not be settled."""
        return self.root / "conflicts.parquet"

    @property
    def sifted(self) -> Path:
        """The label store without the cells that rules drop."""
        return self.root / "labels-qc.ome.zarr"

    @property
    def restored(self) -> Path:
        """The image as it was restored, where that is saved."""
        return self.root / "restored.ome.zarr"

    @property
    def blocks(self) -> Path:
        """The table of the image's blocks: what quality control found in each."""
        return self.root / "qc.parquet"

    @property
    def scratch(self) -> Path:
        """Folder of the stages."""
        return self.run.runs / safe_name(self.name)

    @property
    def rates(self) -> Path:
        """What `plan --calibrate` measured of this unit."""
        return self.scratch / "rates.json"

    def stage(self, stage: str, digest: str) -> StagePaths:
        """Return the files of a stage.

        Parameters
        ----------
        stage : str
            Its name.
        digest : str
            Hash of its settings and of all upstream: 12 hex digits.

        Returns
        -------
        StagePaths
            Of this unit.
        """
        return StagePaths(self, stage, digest)


@dataclass(frozen=True)
class StagePaths:
    """The files of one stage of a unit: what it makes, and the claims, data, ledgers, done files.

    Parameters
    ----------
    unit : UnitPaths
        The unit.
    stage : str
        Name of the stage: small letters, digits and `_`.
    digest : str
        Hash of its settings and of all upstream: 12 hex digits.
    """

    unit: UnitPaths
    stage: str
    digest: str

    def __post_init__(self) -> None:
        """Check both once."""
        if not STAGE.fullmatch(self.stage) or not DIGEST.fullmatch(self.digest):
            raise ValueError(
                "a stage needs a name of small letters, digits and _ and a hash of 12 hex digits,"
                f" got {self.stage!r} and {self.digest!r}."
            )

    @property
    def title(self) -> str:
        """What messages call it."""
        return f"{self.unit.name} {self.stage}"

    @property
    def root(self) -> Path:
        """Folder of the stage."""
        return self.unit.scratch / f"{self.stage}-{self.digest}"

    @property
    def plan(self) -> Path:
        """What a stage of one job makes (plan, number, audit)."""
        return self.root / f"{self.stage}.json"

    @property
    def region(self) -> Path:
        """Where cells are meant, as it was when that was decided."""
        return self.root / "region.bin"

    @property
    def labels(self) -> Path:
        """The label store in the making; audit publishes it."""
        return self.root / "labels.ome.zarr"

    @property
    def restored(self) -> Path:
        """The restored image in the making; audit publishes it."""
        return self.root / "restored.ome.zarr"

    @property
    def cells(self) -> Path:
        """The table of cells in the making; audit publishes it."""
        return self.root / "cells.parquet"

    @property
    def conflicts(self) -> Path:
        """The table of what could not be settled, in the making."""
        return self.root / "conflicts.parquet"

    @property
    def failed(self) -> Path:
        """Why a unit could not be finished, and how often that was tried."""
        return self.root / "failed.json"

    @property
    def images(self) -> Path:
        """Of a job that segments many images: the hash of what each of them depends on."""
        return self.root / IMAGES

    @property
    def trying(self) -> Path:
        """Of such a job: which image it is at, and how often it was killed at which."""
        return self.root / "trying.json"

    def claim(self, batch: int, token: int) -> Path:
        """Return the claim of a batch: who works on it, or did."""
        return self.root / "claims" / f"{batch:04d}.{token}"

    def data(self, batch: int, token: int) -> Path:
        """Return the blobs of one attempt on a batch."""
        return self.root / "data" / f"{batch:04d}.{token}.bin"

    def ledger(self, batch: int, token: int) -> Path:
        """Return the ledger of one attempt on a batch."""
        return self.root / "ledger" / f"{batch:04d}.{token}.jsonl"

    def done(self, batch: int) -> Path:
        """Return the file that says that a batch is done, and by which files."""
        return self.root / "done" / f"{batch:04d}.json"

    def took(self, batch: int) -> Path:
        """Return what the attempts on a batch took, a line each; it outlives the stage's folder."""
        name = f"{self.stage}-{self.digest}.{batch:04d}.jsonl"
        return self.unit.run.logs / self.unit.root.name / name

    @property
    def costs(self) -> Path:
        """What the stages of a unit take, where that was measured after its tiles were planned."""
        return self.root / "costs.json"

    @property
    def gate(self) -> Path:
        """What says to the workflow that all batches are done, where there are many."""
        return self.root / "done" / "all"

    def attempts(self) -> dict[int, tuple[int, ...]]:
        """Return the tokens, ascending, of each batch of which there is any file."""
        found: dict[int, set[int]] = {}
        for path in (self.claim(0, 0), self.data(0, 0), self.ledger(0, 0)):
            for name in _names(path.parent):
                if match := ATTEMPT.fullmatch(name):
                    found.setdefault(int(match[1]), set()).add(int(match[2]))
        return {batch: tuple(sorted(tokens)) for batch, tokens in found.items()}


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []
