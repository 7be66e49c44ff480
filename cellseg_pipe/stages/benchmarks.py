"""Gathers what the jobs of a run took into one table, with its sums and what they cost."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from cellseg_pipe.config import ConfigError
from cellseg_pipe.ledger import write_whole
from cellseg_pipe.site import Prices, load_site
from cellseg_pipe.stages._bundle_costs import bundle_costs
from cellseg_pipe.stages._run_layout import SMALL, RunLayout
from cellseg_pipe.stages.costs import planned_costs
from cellseg_pipe.stages.took import read_took

__all__ = ["gather", "known_prices", "summed"]

log = logging.getLogger(__name__)

HOUR_S = 3600.0
Row = dict[str, Any]


def gather(layout: RunLayout) -> list[Row]:
    """Write the table of all jobs of a run, unless it is there with this content.

    Parameters
    ----------
    layout : RunLayout
        The run.

    Returns
    -------
    list of dict
        Its rows: one for each attempt that was not killed, in the order of the stages.
    """
    rows = list(_rows(layout))
    content, path = _parquet(rows), layout.paths.benchmarks
    if not path.exists() or path.read_bytes() != content:
        write_whole(path, content)
    return rows


def _rows(layout: RunLayout) -> Iterator[Row]:
    predicted = _predicted(layout)
    for unit, stage in layout.jobs():
        files = layout.files(unit, stage.name)
        for batch in range(stage.n_batches):
            for number, took in enumerate(read_took(files.took(batch)), 1):
                about = {"unit": unit, "stage": stage.name, "batch": batch, "attempt": number}
                yield about | asdict(took) | {"predicted_bytes": predicted.get((unit, stage.name))}


def _predicted(layout: RunLayout) -> dict[tuple[str, str], int]:
    """Return the predicted memory of a job, by unit and stage."""
    found = {(SMALL, name): cost.memory_bytes for name, cost in bundle_costs(layout).items()}
    for name in layout.names:
        for cost in planned_costs(layout.files(name, "tiles")):
            found[name, cost["stage"]] = cost["memory_bytes"]
    return found


def _parquet(rows: list[Row]) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    kinds = {
        pa.string(): ("unit", "stage", "host", "slurm_job", "failed"),
        pa.int64(): (
            *("batch", "attempt", "threads", "gpus", "peak_bytes", "predicted_bytes"),
            *("asked_bytes", "read_bytes", "written_bytes"),
        ),
        pa.float64(): ("started", "wall_s", "cpu_s"),
        pa.bool_(): ("computed_on_gpu",),
    }
    schema = pa.schema([(name, kind) for kind, names in kinds.items() for name in names])
    file = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows, schema), file, compression="zstd")
    return file.getvalue()


def known_prices() -> Prices | None:
    """Return what is charged here, as the site file says; a faulty one ends no finished run."""
    try:
        return load_site().prices
    except (ConfigError, OSError) as error:
        log.warning("what the run cost is not told: %s", error)
        return None


def summed(rows: list[Row], prices: Prices | None = None) -> dict[str, Any]:
    """Return what all jobs took together, and those of each stage.

    Parameters
    ----------
    rows : list of dict
        From `gather`.
    prices : Prices, optional
        What is charged for what was asked.

    Returns
    -------
    dict of str
        What was asked is threads and GPUs for as long as jobs ran, what was used is what they
        computed: of GPUs the time of jobs that used one.
    """
    stages: dict[str, list[Row]] = {}
    for row in rows:
        stages.setdefault(row["stage"].rstrip("0123456789"), []).append(row)
    peaks = {
        name: {
            "peak_memory_gb": _gb(max(row["peak_bytes"] for row in own)),
            "predicted_memory_gb": _gb(max(_known(own, "predicted_bytes"), default=None)),
        }
        for name, own in stages.items()
    }
    each = {name: _together(own) | peaks[name] for name, own in stages.items()}
    total = _together(rows)
    cost = {} if prices is None else {"cost": _cost(total, prices)}
    return total | cost | {"stages": each}


def _cost(total: Mapping[str, float], prices: Prices) -> dict[str, Any]:
    cpu = total["cpu_hours_asked"] * prices.cpu_hour
    gpu = total["gpu_hours_asked"] * prices.gpu_hour
    rounded = {"cpu": round(cpu, 6), "gpu": round(gpu, 6), "total": round(cpu + gpu, 6)}
    return rounded | {"currency": prices.currency}


def _together(rows: list[Row]) -> dict[str, Any]:
    return {
        "jobs": len({(row["unit"], row["stage"], row["batch"]) for row in rows}),
        "attempts": len(rows),
        "failed_attempts": sum(row["failed"] is not None for row in rows),
        "cpu_hours_asked": _hours(row["threads"] * row["wall_s"] for row in rows),
        "cpu_hours_used": _hours(row["cpu_s"] for row in rows),
        "gpu_hours_asked": _hours(row["gpus"] * row["wall_s"] for row in rows),
        "gpu_hours_used": _hours(row["wall_s"] for row in rows if row["computed_on_gpu"]),
        "read_gb": _gb(sum(_known(rows, "read_bytes"))),
        "written_gb": _gb(sum(_known(rows, "written_bytes"))),
    }


def _known(rows: list[Row], name: str) -> list[int]:
    return [row[name] for row in rows if row[name] is not None]


def _hours(seconds: Iterable[float]) -> float:
    return round(sum(seconds) / HOUR_S, 6)


def _gb(n_bytes: int | None) -> float | None:
    return None if n_bytes is None else round(n_bytes / 1e9, 6)
