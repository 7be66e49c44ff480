"""Many small images that need the usual stages: few jobs, the same files, no scratch, no loss."""

import json
import shutil
from pathlib import Path

import pytest

from cellseg_pipe.engines import process
from cellseg_pipe.ledger import Corrupt, Stopped, passing_over
from cellseg_pipe.stages import bundle, forecast, opened, staged
from cellseg_pipe.stages.layout import lay_out, layout_of, open_stages
from cellseg_pipe.stages.opened import open_unit
from cellseg_pipe.stages.room import NoRoom
from cellseg_pipe.stages.summary import Incomplete, SomeFailed
from tests.pipeline.conftest import scene
from tests.pipeline.test_restore import network
from tests.pipeline.test_targets import GROWN, NETWORKS, RELATE
from tests.pipeline.worker import config_of, experiment, killed_run, results_of, run, save_tiff

SHAPES = {"a": (70, 100), "b": (64, 90), "c": (80, 80)}
TILES = {"window_px": 96, "overlap_px": 16, "batches": {"bundles": 2}}
NOISY = {"diameter_px": 25.0, "window_px": 64, "overlap_px": 16, "save": True}
RELATED = {"targets": NETWORKS, "relate": {**RELATE, "labels": True}}
KINDS = {
    "related": RELATED,
    "grown": {"targets": GROWN},
    "second labels": {"qc": {"labels": True, "drop": {"max_flow_error": 0.2}}},
    "joined by overlap": {"stitch": {"seams": "iou"}},
    "restored and kept": {"restore": NOISY},
    "regions": {"region": {"box_px": [[10, 10], [60, 60]]}},
}
WHOLE = {  # made in memory
    "unrelated": {"targets": NETWORKS},
    "classes": {"targets": {"nuclei": {"model": "nuclei", "diameter_classes": 2}}},
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    for seed, (name, shape) in enumerate(SHAPES.items(), 3):
        save_tiff(tmp_path / "images" / f"{name}.tif", scene(shape, seed=seed)[0])
    return tmp_path / "images"


def chosen_of(folder, out, bundle_px=10_000, **sections):
    region = sections.pop("region", None)
    images = [
        {"path": str(folder / f"{name}.tif"), **({"region": region} if region else {})}
        for name in SHAPES
    ]
    if "restore" in sections:
        sections["restore"] = {"model": network(folder.parent)} | sections["restore"]
    said = {"segment": {"reach_px": 14}, "tiles": {**TILES, "bundle_px": bundle_px}}
    return experiment(
        folder.parent, images, output={"dir": str(folder.parent / out)}, **said | sections
    )


def published_in(chosen):
    """Checksums of all that users see, but for what says how long things took."""
    found = results_of(Path(chosen.output.dir))
    aside = ("runs/", "logs/", ".locks/", "benchmarks", "summary.json", "plan.json", "config.yaml")
    return {name: digest for name, digest in found.items() if not name.startswith(aside)}


def said_of(chosen):
    """What the summary says of results: tiles of whole images are not as those of stages."""
    units = json.loads((Path(chosen.output.dir) / "summary.json").read_text())["units"]
    return {
        name: {key: facts[key] for key in ("n_cells", "exact", "warnings", "labels", "mode", "qc")}
        for name, facts in units.items()
    }


def plans_of(chosen):
    return json.loads((Path(chosen.output.dir) / "plan.json").read_text())


def stages_left(chosen):
    """Folders of stages, without those that say what was found."""
    scratch = Path(chosen.output.dir, "runs").glob("*/*")
    found = {path.name for path in scratch if path.is_dir() and "small_images" not in str(path)}
    return {name for name in found if not name.startswith("audit-")}


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_of_many_gives_the_files_of_jobs_of_their_own(folder, kind):
    together = chosen_of(folder, "together", **KINDS[kind])
    alone = chosen_of(folder, "alone", 0, **KINDS[kind])
    assert run(together) == []
    assert {unit.partition("-")[0] for unit, _, _ in run(alone)} == set(SHAPES)
    found = published_in(together)
    assert found == published_in(alone) and len(found) > 20
    assert said_of(together) == said_of(alone)
    assert sum(unit["n_cells"] for unit in said_of(together).values()) > 5
    assert stages_left(together) == set() and len(stages_left(alone)) > 5
    mine, theirs = plans_of(together), plans_of(alone)
    assert list(mine) == list(theirs)
    for name, plans in theirs.items():
        assert set(mine[name]) == set(plans)
        for stage, plan in plans.items():
            assert mine[name][stage]["plan"] == plan["plan"]
    assert run(together) == [] and published_in(together) == found


@pytest.mark.parametrize("kind", WHOLE)
def test_what_needs_no_stages_is_made_in_memory(folder, monkeypatch, kind):
    together = chosen_of(folder, "together", **WHOLE[kind])
    alone = chosen_of(folder, "alone", 0, **WHOLE[kind])
    monkeypatch.setattr(bundle, "run_staged", None)
    run(together)
    run(alone)
    assert published_in(together) == published_in(alone)


def test_images_of_two_targets_are_few_jobs(folder):
    for number in range(40):
        shutil.copyfile(folder / "a.tif", folder / f"n{number}.tif")
    images = [{"path": str(path)} for path in sorted(folder.iterdir())]
    layout, _ = lay_out(experiment(folder.parent, images, **RELATED))
    jobs = [(unit, stage) for unit, stage, batches in open_stages(layout) for _ in batches]
    assert len(layout.audits) == 3 * 43 and len(jobs) <= 3
    for stage in lay_out(chosen_of(folder, "out", **RELATED))[0].bundles:
        owners = [name.partition("-")[0] for name in stage.images]
        assert [owners.count(name) for name in dict.fromkeys(owners)] == [3] * (len(owners) // 3)


KILLS = {"whole-written": (25, 8), "data-written": (30,), "done-written": (25,)}


@pytest.mark.parametrize("site", KILLS)
def test_killed_runs_end_as_others(folder, tmp_path, site):
    calm, chosen = (chosen_of(folder, out, **RELATED) for out in ("calm", "out"))
    run(calm)
    config, log = config_of(chosen, tmp_path / "c.yaml"), str(tmp_path / "log")
    assert all(killed_run(config, f"{site}:{number}", None, log) for number in KILLS[site])
    assert not (Path(chosen.output.dir) / "summary.json").exists()
    assert not killed_run(config, "", None, log)
    assert published_in(chosen) == published_in(calm)
    assert stages_left(chosen) == set()


@pytest.mark.parametrize("step", ["with_plans", "clear_stages"])
def test_a_job_that_ends_while_it_tidies_up_goes_on(folder, monkeypatch, step):
    calm, chosen = (chosen_of(folder, out, **RELATED) for out in ("calm", "out"))
    run(calm)
    real, calls = getattr(staged, step), []

    def ending(unit, *rest):
        if len(calls) == 1:
            raise SystemExit("as if the process were killed")
        calls.append(unit.name)
        return real(unit, *rest)

    monkeypatch.setattr(staged, step, ending)
    with pytest.raises(SystemExit):
        run(chosen)
    monkeypatch.undo()
    run(chosen)
    assert published_in(chosen) == published_in(calm) and stages_left(chosen) == set()
    assert plans_of(chosen).keys() == plans_of(calm).keys()
    assert all(plans_of(chosen).values())


def test_other_settings_and_the_first_ones_again(folder):
    first = chosen_of(folder, "out", **RELATED)
    other = chosen_of(folder, "out", **{**RELATED, "segment": {"reach_px": 14, "min_size_px": 150}})
    fewer = chosen_of(folder, "out", targets=NETWORKS)  # in memory
    run(first)
    wanted = published_in(first)
    run(other)
    assert published_in(other) != wanted
    run(fewer)
    run(first)
    assert published_in(first) == wanted


def test_a_bad_image_fails_for_all_its_targets_and_no_other(folder):
    kept = (folder / "b.tif").read_bytes()
    content = bytearray(kept)
    content[200:] = bytes(len(kept) - 200)
    (folder / "b.tif").write_bytes(content[:300])
    chosen = chosen_of(folder, "out", **RELATED)
    with pytest.raises(SomeFailed, match="b-nuclei"):
        run(chosen)
    summary = json.loads((Path(chosen.output.dir) / "summary.json").read_text())
    assert {name.partition("-")[0] for name in summary["units"]} == {"a", "c"}
    assert {name.partition("-")[0] for name in summary["failed"]} == {"b"}
    (folder / "b.tif").write_bytes(kept)
    run(chosen)
    calm = chosen_of(folder, "calm", **RELATED)
    run(calm)
    assert published_in(chosen) == published_in(calm)


def test_an_image_that_kills_its_job_is_left_out(folder, monkeypatch):
    real = bundle._one

    def deadly(experiment, units, *rest, **more):
        if units[0].image.name == "b":
            raise SystemExit("as if the process were killed")
        return real(experiment, units, *rest, **more)

    monkeypatch.setattr(bundle, "_one", deadly)
    chosen = chosen_of(folder, "out", **RELATED)
    for _ in range(bundle.MOST_KILLS):
        with pytest.raises(SystemExit):
            run(chosen)
    with pytest.raises(SomeFailed, match="killed 3 times"):
        run(chosen)
    failed = json.loads((Path(chosen.output.dir) / "failed.json").read_text())
    assert set(failed) == {"b-nuclei", "b-cells", "b-cytoplasm"}


def test_a_job_that_is_told_to_stop_blames_no_image(folder, monkeypatch):
    real = bundle._one

    def stopping(experiment, units, *rest, **more):
        if units[0].image.name == "c":
            raise Stopped("the queue wants the node")
        return real(experiment, units, *rest, **more)

    monkeypatch.setattr(bundle, "_one", stopping)
    chosen = chosen_of(folder, "out", **RELATED)
    for _ in range(bundle.MOST_KILLS + 1):
        with pytest.raises(Stopped):
            run(chosen)
    monkeypatch.undo()
    run(chosen)
    assert len(said_of(chosen)) == 9


def test_a_change_that_was_cut_short_and_taken_back(folder, monkeypatch):
    """The audit of a target that the change does not touch is redone; the first run knows."""
    first = chosen_of(folder, "out", targets=GROWN)
    far = {**GROWN, "cells": {**GROWN["cells"], "expand_px": 7.0}}
    other = chosen_of(folder, "out", targets=far)
    run(first)
    wanted = published_in(first)

    def killed(*_, **__):
        raise SystemExit("as if the process were killed")

    monkeypatch.setattr(staged, "do_job", killed)
    with pytest.raises(SystemExit):
        run(other)
    monkeypatch.undo()
    run(first)
    assert published_in(first) == wanted
    run(other)
    run(first)
    assert published_in(first) == wanted


def test_images_that_get_jobs_of_their_own_keep_their_results(folder):
    together = chosen_of(folder, "out", **RELATED)
    run(together)
    wanted, plans = published_in(together), plans_of(together)
    alone = chosen_of(folder, "out", 0, **RELATED)
    assert run(alone) == []
    assert published_in(alone) == wanted and plans_of(alone) == plans
    other = chosen_of(
        folder, "out", 0, **{**RELATED, "segment": {"reach_px": 14, "min_size_px": 150}}
    )
    run(other)
    kept = stages_left(other)
    assert len(kept) > 5
    run(chosen_of(folder, "out", **{**RELATED, "segment": {"reach_px": 14, "min_size_px": 150}}))
    assert stages_left(other) == kept  # windows that jobs of their own made serve again


def test_a_made_target_of_its_own_jobs_needs_what_a_bundle_removed(folder):
    """The network is asked again, its labels stay as they are published."""
    far = {**GROWN, "cells": {**GROWN["cells"], "expand_px": 7.0}}
    run(chosen_of(folder, "out", targets=GROWN))
    alone = chosen_of(folder, "out", 0, targets=far)
    jobs = run(alone)
    assert {stage for unit, stage, _ in jobs if unit == "a-nuclei"} >= {"predict", "tiles"}
    assert not {stage for unit, stage, _ in jobs if unit == "a-nuclei"} & {"paint", "audit"}
    calm = chosen_of(folder, "calm", 0, targets=far)
    run(calm)
    assert published_in(alone) == published_in(calm)


def test_a_target_that_the_largest_image_cannot_have(folder, monkeypatch):
    """Its networks are planned by the next image; a related target that is missing is said."""
    real = opened.check_restoring

    def picky(unit):
        if unit.name == "a-nuclei":
            raise ValueError("a is none for nuclei")
        real(unit)

    monkeypatch.setattr(opened, "check_restoring", picky)
    chosen = chosen_of(folder, "out", **RELATED)
    with pytest.raises(SomeFailed):
        run(chosen)
    failed = json.loads((Path(chosen.output.dir) / "failed.json").read_text())
    assert {name.partition("-")[0] for name in failed} == {"a"}
    assert {name.partition("-")[0] for name in said_of(chosen)} == {"b", "c"}
    monkeypatch.undo()
    run(chosen)
    assert len(said_of(chosen)) == 9 and stages_left(chosen) == set()


def test_a_target_that_cannot_be_grown_leaves_the_others(folder):
    targets = {**NETWORKS, "grown": {"expand": "nuclei", "expand_um": 2}}  # no size of a pixel
    chosen = chosen_of(folder, "out", targets=targets)
    with pytest.raises(SomeFailed, match="grown: expand_um needs the size of a pixel"):
        run(chosen)
    assert {name.partition("-")[2] for name in said_of(chosen)} == set(NETWORKS)
    assert len(said_of(chosen)) == 2 * len(SHAPES)


def test_a_job_that_passes_over_images_makes_levels_in_their_order(folder):
    save_tiff(folder / "a.tif", scene((64, 1100), seed=3)[0])
    calm, again = (
        chosen_of(folder, name, 100_000, **KINDS["restored and kept"]) for name in ("calm", "again")
    )
    run(calm)
    with passing_over(1):  # as after a worker that died
        run(again)
    assert (Path(calm.output.dir) / "a" / "restored.ome.zarr" / "2").is_dir()
    assert published_in(again) == published_in(calm)


def test_networks_that_cannot_be_loaded_here_blame_no_image(folder, monkeypatch):
    chosen = chosen_of(folder, "out", **RELATED)
    with monkeypatch.context() as patched:
        patched.setattr(bundle, "checked_networks", lambda *_, **__: no_gpu())
        with pytest.raises(ValueError, match="could not be loaded: no GPU"):
            run(chosen)
    assert not (Path(chosen.output.dir) / "failed.json").exists()
    run(chosen)
    assert len(said_of(chosen)) == 9


def no_gpu():
    raise ValueError("no GPU")


def test_a_target_that_no_image_can_have_stops_no_other(folder, monkeypatch):
    real = opened.check_restoring

    def picky(unit):
        if unit.unit.target == "cells":
            raise MemoryError("cells never fit")
        real(unit)

    for sections in (WHOLE["unrelated"], {**WHOLE["unrelated"], **KINDS["second labels"]}):
        chosen = chosen_of(folder, f"out{len(sections)}", **sections)
        layout_of(chosen)  # it opens
        with monkeypatch.context() as patched:
            patched.setattr(
                bundle, "open_unit", lambda e, unit: (u := open_unit(e, unit), picky(u))[0]
            )
            with pytest.raises(SomeFailed, match="cells never fit"):
                run(chosen)
        assert {name.partition("-")[2] for name in said_of(chosen)} == {"nuclei"}
        found = published_in(chosen)
        with pytest.raises(SomeFailed, match="cells could be planned of no image"):
            run(chosen)
        for path in Path(chosen.output.dir, "runs").glob("small_images~*/plan-*"):
            shutil.rmtree(path)
        run(chosen)
        assert len(said_of(chosen)) == 6
        nuclei = {name: digest for name, digest in found.items() if "-nuclei" in name}
        assert len(nuclei) > 6 and nuclei.items() <= published_in(chosen).items()


def test_a_full_disk_is_no_kill(folder, monkeypatch):
    def no_room(*_, **__):
        raise NoRoom("the results will not fit")

    chosen = chosen_of(folder, "out", **RELATED)
    monkeypatch.setattr(staged, "do_job", no_room)
    for _ in range(bundle.MOST_KILLS + 1):
        with pytest.raises(NoRoom):
            run(chosen)
    monkeypatch.undo()
    run(chosen)
    assert len(said_of(chosen)) == 9


def test_scratch_that_is_damaged_fails_its_image_alone_and_is_made_anew(folder, monkeypatch):
    real = staged.do_job

    def spoiled(unit, stage, **said):
        if stage == "paint" and unit.unit.image.name == "b":
            raise Corrupt("a record is damaged")
        real(unit, stage, **said)

    monkeypatch.setattr(staged, "do_job", spoiled)
    chosen = chosen_of(folder, "out", **RELATED)
    with pytest.raises(SomeFailed, match="a record is damaged"):
        run(chosen)
    assert {name.partition("-")[0] for name in said_of(chosen)} == {"a", "c"}
    assert stages_left(chosen) == set()
    monkeypatch.undo()
    run(chosen)
    assert len(said_of(chosen)) == 9


def test_a_disk_that_is_full_is_no_bad_image(folder, monkeypatch):
    def no_room(*_, **__):
        raise NoRoom("the results will not fit")

    monkeypatch.setattr(staged, "do_job", no_room)
    chosen = chosen_of(folder, "out", **RELATED)
    with pytest.raises(NoRoom):
        run(chosen)
    assert not (Path(chosen.output.dir) / "failed.json").exists()


def test_second_labels_that_are_gone_are_missed(folder):
    chosen = chosen_of(folder, "out", **KINDS["second labels"])
    run(chosen)
    wanted, layout = published_in(chosen), layout_of(chosen)
    shutil.rmtree(layout.paths.unit("b").sifted)
    layout.marker.unlink()
    with pytest.raises(Incomplete, match="b: .* is gone. Remove"):
        process.finish(layout.config)
    layout.audit("b").plan.unlink()
    bundles = Path(chosen.output.dir, "runs").glob("small_images~*/bundle*")
    for path in bundles:
        shutil.rmtree(path)
    run(chosen)
    assert published_in(chosen) == wanted


def test_time_and_memory_are_told_before(folder, tmp_path):
    chosen = chosen_of(folder, "out", **RELATED)
    told = forecast.run(config_of(chosen, tmp_path / "c.yaml"))
    ((name, cost),) = told.stages
    assert name == "small images" and cost.n_jobs == 2 and cost.n_tiles == 9
    assert 2e8 < cost.memory_bytes < 3e9 and 0.1 < cost.seconds < 60
    # In a process of its own: this one has held what other tests needed.
    assert not killed_run(config_of(chosen, tmp_path / "c.yaml"), "", None, str(tmp_path / "log"))
    took = json.loads((Path(chosen.output.dir) / "summary.json").read_text())["resources"]
    assert set(took["stages"]) == {"bundle"}
    memory = took["stages"]["bundle"]
    assert 0.2 < memory["peak_memory_gb"] < memory["predicted_memory_gb"]
    assert not list(Path(chosen.output.dir, "logs").glob("[abc]-*"))
