"""The restored image as a store of its own: that of `restore`, whatever the tiles and deaths."""

import json
import os
import random
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

import cellseg_pipe as cs
from cellseg_pipe.io.opening import open_image
from cellseg_pipe.io.pyramid import downsample
from cellseg_pipe.io.validate import validate
from cellseg_pipe.ledger import Batch, Corrupt
from cellseg_pipe.stages import audit, paint
from cellseg_pipe.stages.audit import Incomplete
from cellseg_pipe.stages.jobs import jobs_of, run_job
from cellseg_pipe.stages.opened import unit_runs
from tests.pipeline.test_restore import (
    METHODS,
    OTHER,
    chosen_of,
    image_of,
    kind_of_image,
    restoring,
)
from tests.pipeline.worker import (
    TINY,
    config_of,
    experiment,
    killed_run,
    results_of,
    run,
    run_in,
    shards_of,
)

STORE = "restored.ome.zarr"


def store_of(folder):
    return folder / "out" / "a" / STORE


def levels_of(store):
    return [np.asarray(array[...]) for _, array in sorted(zarr.open_group(str(store)).arrays())]


def files_of(folder):
    return {n: s for n, s in results_of(folder / "out" / "a").items() if n.startswith(STORE)}


def expected(mode, section):
    axes = "zyx"[-image_of(mode).ndim :]
    return cs.restore(image_of(mode), axes=axes, device="cpu", **section).pixels


@pytest.mark.parametrize(
    ("mode", "method"), [(m, "network") for m in ("2d", "planes", "3d")] + [("2d", "median")]
)
def test_it_is_the_image_that_restore_gives(tmp_path, pool, mode, method):
    section = restoring(tmp_path, method)
    run(chosen_of(tmp_path, mode, section | {"save": True}, tiling=((1, 1, 1), 0, (2, 3, 3))))
    finest, *smaller = levels_of(store_of(tmp_path))
    assert finest.dtype == np.float32
    np.testing.assert_array_equal(finest[0], expected(mode, section))
    above = finest[0]
    for level in smaller:
        factor = [-(-a // b) for a, b in zip(above.shape, level.shape[1:], strict=True)]
        np.testing.assert_array_equal(level[0], above := downsample(above, factor, kind="image"))
    assert mode == "3d" or smaller
    assert not [finding for finding in validate(store_of(tmp_path)) if finding.level == "error"]
    files = files_of(tmp_path)
    other = chosen_of(tmp_path, mode, section | {"save": True}, tiling=OTHER)
    config = config_of(other, tmp_path / "other.yaml")
    run_in(pool, other, config, order=random.Random(1), threads=(1, 2))
    changed = {name for name, known in files_of(tmp_path).items() if files[name] != known}
    assert len(files) > 4 and all(name.endswith(("zarr.json", ".zattrs")) for name in changed)


@pytest.mark.parametrize("kind", ["series", "channel", "colours", "region"])
def test_images_of_any_kind(tmp_path, kind):
    image, axes, restores, target = kind_of_image(kind)
    section = restoring(tmp_path, "gaussian") | restores
    photometric = "rgb" if kind == "colours" else "minisblack"
    tifffile.imwrite(tmp_path / "a.tif", image, photometric=photometric)
    about = {} if kind == "colours" else {"axes": axes}  # which the file tells
    about |= {"region": {"box_px": [[10, 70], [60, 90]]}} if kind == "region" else {}
    chosen = experiment(
        tmp_path,
        [{"path": str(tmp_path / "a.tif")} | about],
        targets={"nuclei": {"model": str(TINY), "diameter_px": 24, **target}},
        segment={"reach_px": 16},
        restore=section | {"save": True},
        tiles={"window_px": 96, "overlap_px": 16, "batches": {"paint": 3}},
    )
    run(chosen)
    pixels = cs.restore(image, axes=axes, device="cpu", **section).pixels
    found = open_image(store_of(tmp_path))
    assert found.rgb == (kind == "colours")
    stored = levels_of(store_of(tmp_path))[0]
    restored = _seen_by(chosen, pixels, axes)
    if kind == "region":  # boxes that it does not touch are left out
        assert not stored[..., :64].any()
        stored, restored = stored[..., 64:128], restored[..., 64:128]
        stored, restored = stored[:, :64], restored[:, :64]
    np.testing.assert_array_equal(stored, restored)


def _seen_by(chosen, pixels, axes):
    """A restored image with the axes of its store."""
    if axes.endswith("c"):
        return np.moveaxis(pixels, -1, 0)
    if "t" in axes:
        return pixels[:, None]
    return pixels if "c" in axes else pixels[None]


def test_killed_while_it_is_written(tmp_path):
    section = restoring(tmp_path, "median", save=True)
    chosen = chosen_of(tmp_path, "2d", section, tiling=((1, 1, 1), 0, (1, 1, 2)))
    run(chosen)
    whole = results_of(tmp_path / "out" / "a")
    folder = tmp_path / "killed"
    elsewhere = chosen.output.model_copy(update={"dir": str(folder / "out")})
    folder.mkdir()
    config = config_of(chosen.model_copy(update={"output": elsewhere}), folder / "a.yaml")
    killed = [
        killed_run(config, "", (die_in, stage), str(folder / "log"))
        for stage in ("restore", "shrink", "publish", "none")
    ]
    assert killed == [True, True, True, False]
    assert results_of(folder / "out" / "a") == whole


def die_in(stage):
    """Kill the process at the second tile of a stage, or before the store is published."""
    real, times = Batch.add, []

    def add(self, key, *args, **settings):
        real(self, key, *args, **settings)
        if f" {stage}" in self._title:
            times.append(key)
            if len(times) == 2:
                self.sync()
                os.kill(os.getpid(), signal.SIGKILL)

    Batch.add = add
    if stage == "publish":
        audit.publish_restored = lambda unit: os.kill(os.getpid(), signal.SIGKILL)


def test_what_was_changed_is_noticed(tmp_path):
    chosen = chosen_of(tmp_path, "2d", restoring(tmp_path, "median", save=True))
    (unit,) = unit_runs(chosen)
    for job in jobs_of(unit):
        if job.stage != "audit":
            run_job(unit, job.stage, batch=job.batch)
    array = zarr.open_group(str(unit.stage("restore").restored), mode="r+")["0"]
    array[0, 100:110, 100:110] = 3
    with pytest.raises(
        Corrupt, match="level 0 of .* is not what was written. Remove .*restore-.*shrink-"
    ):
        audit.run(unit)


def test_it_comes_and_goes_with_the_setting(tmp_path):
    section = restoring(tmp_path, "median")
    run(chosen_of(tmp_path, "2d", section))
    labels = shards_of(tmp_path / "out" / "a")
    assert not store_of(tmp_path).exists()
    for _ in range(2):
        ran = run(chosen_of(tmp_path, "2d", section | {"save": True}))
        assert {stage for _, stage, _ in ran} == {"restore", "shrink", "audit"}
        np.testing.assert_array_equal(levels_of(store_of(tmp_path))[0][0], expected("2d", section))
        assert run(chosen_of(tmp_path, "2d", section | {"save": True})) == []
        run(chosen_of(tmp_path, "2d", section))
        assert not store_of(tmp_path).exists()
        assert shards_of(tmp_path / "out" / "a") == labels


def test_one_that_was_removed_is_made_again_as_the_message_says(tmp_path):
    chosen = chosen_of(tmp_path, "2d", restoring(tmp_path, "median", save=True))
    run(chosen)
    shutil.rmtree(store_of(tmp_path))
    with pytest.raises(Incomplete, match="was published and is gone. Remove ") as told:
        run(chosen)
    for path in re.findall(r"/\S+?-[0-9a-f]{12}(?:/audit.json)?(?=[, ])", str(told.value)):
        shutil.rmtree(path) if Path(path).is_dir() else Path(path).unlink()
    run(chosen)
    assert store_of(tmp_path).exists()


def test_killed_while_it_is_taken_back(tmp_path):
    section = restoring(tmp_path, "median")
    run(chosen_of(tmp_path, "2d", section | {"save": True}))
    config = config_of(chosen_of(tmp_path, "2d", section), tmp_path / "a.yaml")
    assert killed_run(config, "", (die_while_removing, 2), str(tmp_path / "log"))
    run(chosen_of(tmp_path, "2d", section | {"save": True}))
    np.testing.assert_array_equal(levels_of(store_of(tmp_path))[0][0], expected("2d", section))


def die_while_removing(n):
    """Kill the process when it has removed so many folders of the restored image."""
    real, gone = paint.remove, []

    def remove(path):
        real(path)
        gone.append(path)
        if len(gone) == n:
            os.kill(os.getpid(), signal.SIGKILL)

    paint.remove = remove


def test_other_settings_replace_it(tmp_path):
    for size in (3, 5):
        section = METHODS["median"] | {"size_px": size}
        run(chosen_of(tmp_path, "2d", section | {"save": True}))
        np.testing.assert_array_equal(levels_of(store_of(tmp_path))[0][0], expected("2d", section))


def test_it_is_among_what_a_run_will_take(tmp_path):
    chosen = chosen_of(tmp_path, "2d", restoring(tmp_path, "median", save=True))
    run(chosen)
    (unit,) = unit_runs(chosen)
    planned = json.loads(unit.stage("tiles").plan.read_text())
    costs = {cost["stage"]: cost for cost in planned["predicted"]}
    files = [file for file in store_of(tmp_path).rglob("*") if file.is_file()]
    told = sum(costs[stage]["disk_bytes"] for stage in ("restore", "shrink"))
    assert sum(file.stat().st_size for file in files) / 2 < told
    run(chosen_of(tmp_path, "2d", restoring(tmp_path, "median")))  # it may be saved later
    assert json.loads(unit.stage("tiles").plan.read_text()) == planned
    assert costs["restore"]["memory_bytes"] > costs["predict"]["memory_bytes"]
    said = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert said["units"]["a"]["restore"]["method"] == "median"
