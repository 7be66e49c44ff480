"""From the file to the settings of one image and one target; what does not fit together."""

import dataclasses
import math
import re
import subprocess
import sys

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cellseg_pipe.config import (
    ConfigError,
    UnitSettings,
    _kinds,
    dump,
    experiment_of,
    propose,
    settings_of,
    units,
)
from cellseg_pipe.kernels import follow
from cellseg_pipe.nets.catalog import SAM_PREFIX
from cellseg_pipe.segmentation import Settings, plan
from cellseg_pipe.segmentation.settings import CHOICES, LOWEST

LEAST = {"images": [{"path": "a.tif"}], "output": {"dir": "out"}}
# field of Settings: (YAML, what arrives)
FIELDS = {
    "channels": ("targets: {nuclei: {channels: [DAPI, null, 2]}}", ("DAPI", None, 2)),
    "mode": ("segment: {mode: planes}", "planes"),
    "diameter_px": ("targets: {nuclei: {diameter_px: 31.5}}", 31.5),
    "diameter_by": ("targets: {nuclei: {diameter_by: style}}", "style"),
    "diameter_classes": ("targets: {nuclei: {diameter_classes: 3}}", 3),
    "anisotropy": ("segment: {anisotropy: 2.5}", 2.5),
    "normalise": ("normalise: {method: local}", "local"),
    "percentiles": ("normalise: {percentiles: [2, 98.5]}", (2.0, 98.5)),
    "value_range": ("normalise: {range: [-5, 4000]}", (-5.0, 4000.0)),
    "local_px": ("normalise: {method: local, local_px: 128}", 128),
    "invert": ("normalise: {invert: true}", True),
    "smooth_px": ("normalise: {smooth_px: 1.5}", 1.5),
    "sharpen_px": ("normalise: {sharpen_px: 9}", 9.0),
    "antialias": ("normalise: {antialias: true}", True),
    "augment": ("segment: {augment: true}", True),
    "window_px": ("tiles: {window_px: 256}", 256),
    "overlap_px": ("tiles: {overlap_px: 32}", 32),
    "cellprob_threshold": ("segment: {cellprob_threshold: -2}", -2.0),
    "flow_threshold": ("segment: {flow_threshold: null}", None),
    "min_size_px": ("segment: {min_size_px: 0}", 0),
    "max_size_px": ("segment: {max_size_px: 5000}", 5000),
    "niter": ("segment: {niter: 1000}", 1000),
    "following": ("segment: {following: exact}", "exact"),
    "sampling": ("segment: {sampling: nearest}", "nearest"),
    "reach_px": ("segment: {reach_px: [4, 20, 20]}", (4, 20, 20)),
    "resample": ("segment: {resample: false}", False),
    "fill": ("segment: {fill: false}", False),
    "keep_border": ("segment: {keep_border: false}", False),
    "flow_smooth_px": ("segment: {flow_smooth_px: 2}", 2.0),
    "stitch_threshold": ("stitch: {plane_iou: 0.5}", 0.5),
    "time_iou": ("stitch: {time_iou: 0.3}", 0.3),
}


def settled(text="", image="", target="nuclei"):
    """Return the settings of an image in an experiment."""
    entry = {"path": "a.tif", **(yaml.safe_load(image) or {})}
    experiment = experiment_of({**LEAST, "images": [entry], **(yaml.safe_load(text) or {})})
    return settings_of(experiment, experiment.images[0], target)


def said(text, image=""):
    with pytest.raises(ConfigError) as caught:
        settled(text, image)
    return str(caught.value)


def test_an_empty_experiment_means_the_defaults_of_settings():
    found = settled()
    assert Settings(**found.settings) == Settings()
    assert dataclasses.replace(found, settings={}) == UnitSettings({}, None, None, "nuclei", None)
    # What the image or the model decides is not passed on.
    fields = {field.name for field in dataclasses.fields(Settings)}
    decided = {"diameter_px", "diameter_classes", "anisotropy", "percentiles", "window_px"}
    assert fields - set(found.settings) == decided


def test_every_field_of_settings_can_be_set():
    assert set(FIELDS) == {field.name for field in dataclasses.fields(Settings)}


@pytest.mark.parametrize("name", FIELDS)
def test_what_is_set_arrives_and_nothing_else_changes(name):
    text, value = FIELDS[name]
    found = Settings(**settled(text).settings)
    assert getattr(found, name) == value != getattr(Settings(), name)
    assert type(getattr(found, name)) is type(value)
    also = {"normalise": "local"} if name == "local_px" else {}
    assert found == Settings(**{name: value, **also})


PLACES = {
    name: tuple(yaml.safe_load(text).items())[0] for name, (text, _) in FIELDS.items()
}  # field: (section, {key: value})


@pytest.mark.parametrize("name", LOWEST)
def test_limits_are_those_of_settings(name):
    section, keys = PLACES[name]
    low, included = LOWEST[name]
    whole = name in ("min_size_px", "max_size_px", "niter", "local_px", "window_px", "overlap_px")
    below = low - 1 if whole else low - 1e-9
    above = low + 1 if whole else 1e-9
    for value, fits in ((below, False), (low, included), (above, True), (math.inf, False)):
        (holder,) = [keys] if section != "targets" else keys.values()
        key = name if name in holder else list(holder)[-1]
        given = {**holder, key: value}
        if name == "max_size_px":
            given["min_size_px"] = 0
        also = {"overlap_px": 0} if name == "window_px" else {}
        local = {"normalise": "local"} if name == "local_px" else {}
        local |= {"min_size_px": 0} if name == "max_size_px" else {}
        given |= also
        given = {section: given if section != "targets" else {"nuclei": given}}
        assert (
            accepts(lambda value=value, rest=also | local: Settings(**{name: value}, **rest))
            == fits
        )
        assert accepts(lambda given=given: experiment_of({**LEAST, **given})) == fits


def accepts(make):
    try:
        make()
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("name", CHOICES)
def test_choices_are_those_of_settings(name):
    section, keys = PLACES[name]
    holder = keys["nuclei"] if section == "targets" else keys
    (key,) = holder
    for choice in CHOICES[name]:
        given = {key: choice}
        given = {section: {"nuclei": given} if section == "targets" else given}
        assert settled(yaml.safe_dump(given)).settings[name] == choice
    listed = said(yaml.safe_dump({section: {"nuclei": {key: "x"}} if section == "targets" else {
        key: "x"}}))  # fmt: skip
    said_choices = re.search(r"needs one of (.*), got 'x'", listed)[1].split(", ")
    assert sorted(said_choices) == sorted(CHOICES[name])


def test_numbers_written_out_here_are_those_of_other_modules():
    assert _kinds.REACH_MAX == follow.REACH_MAX
    assert _kinds.SAM == SAM_PREFIX
    assert sys.modules[propose.__module__].ANISOTROPY_3D == plan.ANISOTROPY_3D


def test_the_experiment_loads_without_the_networks():
    code = "import sys, cellseg_pipe.config; print({'torch', 'numba', 'zarr'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_what_an_image_sets_goes_before_the_experiment():
    text = (
        "targets: {nuclei: {channels: [0], diameter_um: 8}}\n"
        "segment: {niter: 300, min_size_px: 50, reach_px: 9, anisotropy: 2}\n"
        "normalise: {method: local, local_px: 64}\n"
    )
    base = settled(text)
    assert (base.diameter_um, base.anisotropy) == (8.0, 2.0)
    own = settled(
        text,
        "{channels: GFP, diameter_px: 40, segment: {niter: auto, reach_px: auto, anisotropy: auto,"
        " max_size_px: 900}, normalise: {smooth_px: 1}}",
    )
    changed = {"channels": "GFP", "diameter_px": 40.0, "niter": None, "reach_px": None}
    changed |= {"max_size_px": 900, "smooth_px": 1.0}
    rest = {key: value for key, value in base.settings.items() if key != "anisotropy"}
    assert own.settings == {**rest, **changed}
    assert (own.diameter_um, own.anisotropy) == (None, None)
    # Back to what the experiment would do without its own value.
    measured = settled(text, "{diameter_um: auto}")
    assert measured.diameter_um is None
    assert "diameter_px" not in measured.settings
    assert settled("normalise: {range: [0, 9]}", "{normalise: {range: null}}").settings[
        "value_range"
    ] is None  # fmt: skip


def test_units_are_images_by_targets(tmp_path):
    for name in ("b.tif", "a 10.tif", "a 9.tif"):
        (tmp_path / name).write_bytes(b"x")
    given = {"images": [{"path": f"{tmp_path}/b.tif", "name": "s1"}, {"path": f"{tmp_path}/a*"}]}
    given = {**LEAST, **given}
    assert [unit.name for unit in units(experiment_of(given))] == ["s1", "a_9", "a_10"]
    given["targets"] = {"nuclei": {}, "cells": {"model": "cells"}}
    found = units(experiment_of(given))
    assert [unit.name for unit in found] == [
        "s1-nuclei", "s1-cells", "a_9-nuclei", "a_9-cells", "a_10-nuclei", "a_10-cells",
    ]  # fmt: skip
    assert found[3].image.path == f"{tmp_path}/a 9.tif"
    assert (found[3].target, found[3].image.name) == ("cells", "a_9")
    assert settings_of(experiment_of(given), found[3].image, "cells").model == "cells"
    with pytest.raises(KeyError, match="there is no target 'x': the experiment has nuclei, cells"):
        settings_of(experiment_of(given), found[0].image, "x")


@pytest.mark.parametrize(
    ("text", "image", "words"),
    [
        ("segment: {mode: 2d, anisotropy: 2}", "", "segment.anisotropy needs mode 3d or auto, got"),
        ("segment: {mode: planes, anisotropy: 2}", "", "segment.anisotropy needs mode 3d or auto"),
        ("segment: {mode: planes, flow_smooth_px: 1}", "", "segment.flow_smooth_px needs mode 3d"),
        ("segment: {flow_smooth_px: 1}", "segment: {mode: 2d}", "images[0].segment.flow_smooth_px"),
        ("segment: {max_size_px: 10}", "", "segment.max_size_px needs min_size_px (15) or more, g"),
        ("segment: {max_size_px: 99}", "segment: {min_size_px: 100}", "images[0].segment.max_size"),
        ("normalise: {method: local, range: [1, 2]}", "", "range needs method global, got method"),
        ("normalise: {method: off, range: [1, 2]}", "", "range needs method global, got method of"),
        ("normalise: {method: off, percentiles: [1, 2]}", "", "percentiles has no effect: there i"),
        ("normalise: {range: [0, 1], percentiles: [1, 2]}", "", "percentiles has no effect: there"),
        ("normalise: {range: [1, 2]}", "normalise: {method: local}", "images[0].normalise.range n"),
        ("normalise: {local_px: 64}", "", "normalise.local_px needs method local, got method glob"),
        (
            "tiles: {window_px: 64, overlap_px: 33}",
            "",
            "tiles.overlap_px needs at most half of win",
        ),
        ("tiles: {window_px: 64}", "", "tiles.overlap_px needs at most half of window_px (64), go"),
        ("stitch: {seam_iou: 0.6}", "", "stitch.seam_iou needs seams: iou, got seams: exact"),
        ("targets: {a: {diameter_um: 1, diameter_px: 2}}", "", "targets.a.diameter_px needs to be"),
        ("targets: {a: {diameter_um: 1, diameter_by: style}}", "", "targets.a.diameter_by has no"),
        ("", "{diameter_um: 1, diameter_px: 2}", "images[0].diameter_px needs to be the only one"),
        ("targets: {a: {diameter_classes: 2, diameter_px: 9}}", "", "classes needs diameters that"),
        ("targets: {a: {diameter_classes: 2}}", "diameter_um: 9", "measured, got images[0].diamet"),
        ("targets: {a: {diameter_classes: 2, diameter_by: style}}", "", "needs diameter_by: sampl"),
        (
            "targets: {a: {diameter_classes: 2}}\nstitch: {seams: iou}",
            "",
            "needs seams: exact, g",
        ),
        (
            "targets: {a: {diameter_classes: 2}}\nsegment: {resample: false}",
            "",
            "needs segment.resam",
        ),
        (
            "targets: {a: {diameter_classes: 2}}",
            "segment: {mode: planes}",
            "needs mode 2d or 3d",
        ),
        (
            "targets: {a: {}, b: {expand: a, expand_px: 2, diameter_classes: 2}}",
            "",
            "targets.b.diameter_classes has no effect with expand",
        ),
        ("targets: {a: {diameter_classes: 5}}", "", "targets.a.diameter_classes"),
        ("targets: {a: {diameter_classes: 0}}", "", "targets.a.diameter_classes"),
        ("targets: {a b: {}}", "", "targets.a b needs a short name of letters, digits and _."),
        ("targets: {a-b: {}}", "", "targets.a-b needs a short name of letters, digits and _."),
        ("targets: {a: {side_model: s}}\nsegment: {mode: 2d}", "", "targets.a.side_model needs mo"),
        ("targets: {a: {side_model: s}}", "segment: {mode: planes}", "mode 3d or auto, got mode p"),
        ("targets: {a: {}, b: {}}", "diameter_um: 5", "images[0].diameter_um needs an experiment"),
        ("targets: {a: {}, b: {}}", "channels: [0]", "images[0].channels needs an experiment of o"),
        ("", "axes: yz", "images[0].axes needs a letter out of t, c, z, y, x for each axis, with"),
        ("", "axes: yxx", "images[0].axes needs a letter out of t, c, z, y, x"),
        ("", "{axes: cyx, spacing_um: [1, 1, 1]}", "spacing_um needs 2 numbers for axes cyx, got"),
        ("", "{path: b.ome.zarr, series: 1}", "images[0].series is for files such as TIFF"),
        ("", "{path: https://a.b/c, series: 1}", "images[0].series is for files such as TIFF"),
        ("output: {dir: x, into_image: true}", "", "output.into_image needs OME-Zarr stores, got"),
        (
            "output: {dir: x, into_image: true}",
            "path: https://a.b/c.zarr",
            "output.into_image needs stores that can be written, got https://a.b/c.zarr",
        ),
        (
            "output: {dir: x, export: [geojson]}\nsegment: {mode: 3d}",
            "",
            "output.export of geojson",
        ),
        ("output: {dir: x, export: [csv, csv]}", "", "output.export needs each format once"),
        ("segment: {flow_threshold: 0}\nqc: {flag: {max_flow_error: 1}}", "", "qc.flag.max_flow_e"),
        ("segment: {flow_threshold: 0}\nqc: {drop: {max_flow_error: 1}}", "", "qc.drop.max_flow_e"),
        (
            "segment: {mode: 2d}\ntiles: {overlap_px: 0}\nqc: {flag: {min_agreement: 0.5}}",
            "",
            "qc.flag.min_agreement needs windows that overlap",
        ),
        ("qc: {drop: {min_agreement: 2}}", "", "qc.drop.min_agreement"),
        (
            "qc: {drop: {min_size_px: 9, max_size_px: 8}}",
            "",
            "qc.drop.max_size_px needs min_size_px (9) or more, got 8: all cells would break it.",
        ),
        ("", "name: ../x", "images[0].name needs letters, digits and _ . + - (first a letter or"),
        ("", "name: .x", "images[0].name needs letters, digits and _ . + -"),
        ("", "name: a{b}", "images[0].name needs letters, digits and _ . + -"),
        ("", "name: Runs", "images[0].name needs another name: 'Runs' is a file or folder of ever"),
        ("", f"name: {'x' * 201}", "images[0].name needs letters, digits"),
        ("", "path: ftp://a/b", "images[0].path needs a path or a URL of http://, https://, s3://"),
        ("", "path: $NO_SUCH_THING/b", "needs variables that are set, and $NO_SUCH_THING is not."),
        ("", "path: ${NO_SUCH_THING}/b", "needs variables that are set, and ${NO_SUCH_THING} is"),
        ("", 'path: "a\\0b"', "images[0].path needs a path on one line, got 'a\\x00b'."),
        ("targets: {a: {model: 'https://x/y'}}", "", "models are not downloaded"),
    ],
)
def test_what_does_not_fit_together_is_refused(text, image, words):
    assert words in said(text, image)


@pytest.mark.parametrize(
    ("text", "image"),
    [
        ("segment: {mode: 2d}\nstitch: {plane_iou: 0.6}", ""),
        ("segment: {mode: 2d, anisotropy: auto}", ""),
        ("targets: {nuclei: {side_model: s}}\nsegment: {mode: 2d}", "segment: {mode: 3d}"),
        ("normalise: {method: global, local_px: 256}", ""),
        ("normalise: {method: local}", "normalise: {local_px: 99}"),
        ("segment: {anisotropy: 3}", "segment: {mode: 2d, anisotropy: auto}"),
        ("targets: {nuclei: {diameter_um: 3, diameter_by: samples}}", ""),
        ("output: {dir: x, export: [csv, geojson]}", ""),
        ("stitch: {seams: iou, seam_iou: 0.6}\ntiles: {halo_px: 0}", ""),
    ],
)
def test_what_fits_together_is_taken(text, image):
    assert Settings(**settled(text, image).settings)


def test_rules_are_told_with_wrong_keys_unless_they_hang_on_these(tmp_path):
    file = tmp_path / "my.yaml"
    file.write_text(
        "images: [{path: a.tif}, 5]\noutput: {dir: x}\n"
        "normalise: {method: lokal, local_px: 64}\n"  # method may be local: no word on local_px
        "segment: {max_size_px: 1, flow_smooth_px: x, mode: 2d}\n"
        "stitch: {seam_iou: 0.9}\n"
    )
    with pytest.raises(ConfigError) as caught:
        experiment_of(yaml.safe_load(file.read_text()), source=file)
    assert [problem.path for problem in caught.value.problems] == [
        ("images", 1), ("normalise", "method"), ("segment", "flow_smooth_px"),
        ("stitch", "seam_iou"),
    ]  # fmt: skip


def test_names_given_twice_are_told_with_both_places():
    images = [{"path": "a.tif", "name": "S1"}, {"path": "b.tif"}, {"path": "c.tif", "name": "s1"}]
    with pytest.raises(ConfigError, match=r"images\[2\].name needs .*: images\[0\] is named 'S1'"):
        experiment_of({**LEAST, "images": images})


words = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1)
numbers = st.floats(1e-3, 1e3)


@given(
    name=st.from_regex(r"[A-Za-zäß0-9][\wé.+-]{0,20}", fullmatch=True),
    channels=st.none() | words | st.integers(0, 9) | st.lists(words | st.none(), min_size=1),
    diameter=st.just("auto") | numbers,
    own=st.fixed_dictionaries(
        {}, optional={"niter": st.just("auto") | st.integers(1, 999), "fill": st.booleans()}
    ),
    threshold=st.none() | numbers,
)
def test_what_is_dumped_gives_the_same_experiment(name, channels, diameter, own, threshold):
    given = {
        "images": [{"path": f"/d/{name}.tif", "name": f"n{name}", "segment": own}],
        "output": {"dir": "/o", "export": ["csv"], "ngff": "0.4"},
        "targets": {"a": {"channels": channels, "diameter_px": diameter}},
        "segment": {"flow_threshold": threshold, "niter": 7, "fill": False},
        "normalise": {"method": "off"},
    }
    if isinstance(channels, list) and len(channels) > 64:
        return
    experiment = experiment_of(given)
    text = dump(experiment)
    again = experiment_of(yaml.safe_load(text))
    assert again == experiment
    assert dump(again) == text
    image = experiment.images[0]
    assert settings_of(again, again.images[0], "a") == settings_of(experiment, image, "a")
    assert settings_of(experiment, image, "a").settings["fill"] == own.get("fill", False)


NUCLEI = {"nuclei": {}, "bodies": {"model": "cells"}}


def test_units_come_after_those_that_they_are_made_from(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"x")
    given = {**LEAST, "images": [{"path": f"{tmp_path}/a.tif"}]}
    given["targets"] = {"cells": {"expand": "nuclei", "expand_px": 3}, **NUCLEI}
    given["relate"] = {"nuclei": "nuclei", "cells": "cells", "labels": True}
    found = units(experiment_of(given))
    assert [(unit.name, unit.sources) for unit in found] == [
        ("a-nuclei", ()), ("a-bodies", ()), ("a-cells", ("nuclei",)),
        ("a-cytoplasm", ("cells", "nuclei")),
    ]  # fmt: skip
    given["relate"]["labels"] = False
    assert [unit.target for unit in units(experiment_of(given))] == ["nuclei", "bodies", "cells"]
    assert experiment_of(yaml.safe_load(dump(experiment_of(given)))) == experiment_of(given)
    # One network: what is said of an image is said of its target.
    image = {"path": "a.tif", "diameter_px": 9}
    given["targets"] = {"nuclei": {}, "cells": {"expand": "nuclei", "expand_px": 3}}
    chosen = experiment_of({**given, "images": [image]})
    assert settings_of(chosen, chosen.images[0], "nuclei").settings["diameter_px"] == 9


GROWN = "{nuclei: {}, cells: {expand: nuclei, expand_um: 5"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"targets: {GROWN}, expand_px: 2}}}}", "cells.expand needs either expand_um or expand_px"),
        ("targets: {a: {}, b: {expand: a}}", "b.expand needs either expand_um or expand_px, got n"),
        ("targets: {a: {expand_px: 2}}", "targets.a.expand_px has no effect without expand"),
        ("targets: {a: {expand: a, expand_px: 2}}", "targets.a.expand needs another target, got i"),
        ("targets: {a: {expand: b, expand_px: 2}}", "got 'b': the experiment has a."),
        (
            f"targets: {GROWN}}}, c: {{expand: cells, expand_px: 2}}}}",
            "'cells', which is grown its",
        ),
        (f"targets: {GROWN}, model: cells}}}}", "targets.cells.model has no effect with expand"),
        (f"targets: {GROWN}, channels: [0]}}}}", "targets.cells.channels has no effect with expa"),
        (f"targets: {GROWN}, diameter_um: 9}}}}", "targets.cells.diameter_um has no effect with"),
        ("relate: {nuclei: nuclei, cells: cells}", "relate.cells needs the name of a target, got"),
        ("relate: {nuclei: nuclei, cells: nuclei}", "relate.cells needs another target than nucl"),
        ("relate: {nuclei: nuclei}", "relate.cells is missing"),
        ("relate: {nuclei: nuclei, cells: c, min_overlap: 0}", "relate.min_overlap needs a number"),
        (
            "targets: {nuclei: {}, cytoplasm: {}}\n"
            "relate: {nuclei: nuclei, cells: cytoplasm, labels: true}",
            "targets.cytoplasm needs another name: relate.labels makes results",
        ),
    ],
)
def test_targets_that_do_not_fit_together(text, words):
    assert words in said(text)
