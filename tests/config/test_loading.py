"""What is refused, and how it is said: every problem of a file at once, with its line."""

import collections
import datetime
import math
import pickle
import re

import pytest
import yaml

from cellseg_pipe.config import ConfigError, dump, experiment_of, load_experiment, settings_of

HEAD = "images: [{path: a.tif}]\noutput: {dir: out}\n"
LEAST = {"images": [{"path": "a.tif"}], "output": {"dir": "out"}}


def refusal(tmp_path, text):
    """Return what is said of a file, without the folder."""
    file = tmp_path / "my.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_experiment(file)
    return str(caught.value).replace(f"{tmp_path}/", "")


def said(mapping):
    with pytest.raises(ConfigError) as caught:
        experiment_of(mapping)
    return str(caught.value)


def test_all_problems_are_said_at_once_in_the_order_of_the_file(tmp_path):
    text = refusal(
        tmp_path,
        "imagez: []\n"
        "images:\n"
        "  - path: a.tif\n"
        "    diameter_um: 10um\n"
        "  - b.tif\n"
        "output: {ngff: 0.6}\n"
        "segment:\n"
        "  niter: 100\n"
        "  niter: 200\n"
        "  mode: 2D\n"
        "normalise:\n"
        "  local_px: 300\n"
        "engine: slurm\n",
    )
    assert text.split("\n  ") == [
        "9 problems in my.yaml:",
        "my.yaml:1: imagez is no known key. Did you mean images?",
        "my.yaml:4: images[0].diameter_um needs auto, a number above 0 or null, got '10um'. Leave"
        " out 'um': the key's name says the unit.",
        "my.yaml:5: images[1] needs keys with values (path: ...), got 'b.tif'.",
        "my.yaml:6: output.dir is missing: it needs text.",
        "my.yaml:6: output.ngff needs one of auto, 0.4, 0.5, got 0.6.",
        "my.yaml:9: segment.niter is given twice, in lines 8 and 9. Leave one.",
        "my.yaml:10: segment.mode needs one of auto, 2d, planes, 3d, got '2D'. Did you mean 2d?",
        "my.yaml:12: normalise.local_px needs method local, got method global.",
        "my.yaml:13: engine needs one of process, snakemake, dask, got 'slurm'.",
    ]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("segmnt: {}\n", 3, "segmnt is no known key. Did you mean segment?"),
        ("segment:\n  mode: 2d\n  nitre: 1\n", 5, "segment.nitre is no known key. Did you mean n"),
        ("normalise: {percentile: [1, 99]}\n", 3, "normalise.percentile is no known key. Did you"),
        ("tiles:\n  batches:\n    predcit: 2\n", 5, "tiles.batches.predcit is no known key. Did"),
        ("tiles: {core: 5}\n", 3, "tiles.core is no known key. Did you mean core_px?"),
        ("stitch:\n  seam: iou\n", 4, "stitch.seam is no known key. Did you mean seams?"),
        ("measure: {chanels: all}\n", 3, "measure.chanels is no known key. Did you mean channels?"),
        ("qc:\n  flag:\n    boarder: keep\n", 5, "qc.flag.boarder is no known key. Did you mean b"),
        ("qc: {flags: {}}\n", 3, "qc.flags is no known key. Did you mean flag?"),
        ("resources:\n\n  gpu: 1\n", 5, "resources.gpu is no known key. Known here: device, prec"),
        ("targets: {a: {diameter: 3}}\n", 3, "targets.a.diameter is no known key. Did you mean d"),
        ("flow_threshold: 1\n", 3, "flow_threshold is no known key here. It is one of segment."),
        ("diameter_px: 1\n", 3, "diameter_px is no known key here. It is one of an image."),
        ("segment: {model: cells}\n", 3, "segment.model is no known key"),
        ("restore: {sigma: 2}\n", 3, "restore.sigma is no known key. Did you mean sigma_px?"),
        ("qc: {drop: {border: flag}}\n", 3, "qc.drop.border needs one of keep, drop, got 'flag'."),
        ("qc:\n  labels: true\n", 4, "qc.labels needs a rule in qc.drop: without one the second"),
    ],
)
def test_unknown_keys_have_a_line_and_a_hint(tmp_path, text, line, words):
    assert refusal(tmp_path, HEAD + text).startswith(f"my.yaml:{line}: {words}")


def test_unknown_keys_of_output_and_images(tmp_path):
    text = "images:\n- path: a.tif\n  spacing: [1, 1]\n  level: 2\n  restore: x\n"
    text = refusal(tmp_path, text + "output:\n  dir: x\n  formats: csv\n")
    assert "my.yaml:3: images[0].spacing is no known key. Did you mean spacing_um?" in text
    assert "my.yaml:4: images[0].level is no known key. Known here: path, name," in text
    assert "my.yaml:5: images[0].restore is no key here: it is one for all images." in text
    assert "Make an experiment for each kind of them." in text
    inner = refusal(tmp_path, HEAD + "targets: {a: {restore: {method: median}}}\n")
    assert "targets.a.restore is no key here: it is one for all images." in inner
    assert "my.yaml:8: output.formats is no known key." in text
    inner = refusal(tmp_path, "images: [{path: a, segment: {moed: 2d}}]\noutput: {dir: x}\n")
    assert inner == "my.yaml:1: images[0].segment.moed is no known key. Did you mean mode?"


@pytest.mark.parametrize(
    ("section", "key", "value", "words"),
    [
        (
            "segment",
            "niter",
            "10um",
            "needs auto or a whole number of 1 or more, got '10um'.",
        ),
        ("segment", "niter", "200", "As a number it is written 200, without quotes."),
        ("segment", "niter", "1e3", "As a number it is written 1000, without quotes."),
        ("segment", "niter", 200.0, "needs auto or a whole number of 1 or more, got 200.0."),
        ("segment", "niter", True, "got true. YAML reads yes, no, on and off as true and false."),
        ("segment", "niter", 0, "needs auto or a whole number of 1 or more, got 0."),
        ("segment", "niter", 10**400, "got a whole number of more than 30 digits."),
        ("segment", "niter", None, "got nothing (null)."),
        ("segment", "niter", [1], "got [1]."),
        ("segment", "niter", {}, "got an empty mapping."),
        ("segment", "mode", 3, "needs one of auto, 2d, planes, 3d, got 3."),
        ("segment", "cellprob_threshold", math.nan, "needs a number, got nan."),
        ("segment", "cellprob_threshold", -math.inf, "needs a number, got -inf."),
        ("segment", "cellprob_threshold", 10**400, "got a whole number of more than 30 digits."),
        ("segment", "cellprob_threshold", False, "needs a number, got false. YAML reads"),
        ("segment", "cellprob_threshold", "0.5", "As a number it is written 0.5, without quotes."),
        ("segment", "cellprob_threshold", "nan", "needs a number, got 'nan'."),
        ("segment", "flow_threshold", -1, "needs a number of 0 or more or null, got -1."),
        ("segment", "flow_threshold", "high", "needs a number of 0 or more or null, got 'high'."),
        ("segment", "min_size_px", 1.5, "needs a whole number of 0 or more, got 1.5."),
        ("segment", "min_size_px", 2**60, "The largest is 1099511627776."),
        ("segment", "max_size_px", 0, "needs a whole number of 1 or more or null, got 0."),
        ("segment", "resample", "true", "needs true or false, got 'true'."),
        ("segment", "fill", 1, "needs true or false, got 1."),
        ("segment", "reach_px", [5], "or a list of 2 to 3 numbers, one per axis, got [5]."),
        ("segment", "reach_px", 40000, "got 40000. The largest is 32766."),
        ("segment", "reach_px", [5, "x"], "needs a whole number of 0 or more, got 'x'."),
        ("segment", "following", "Fast", "Did you mean fast?"),
        ("segment", "anisotropy", 0, "needs auto or a number above 0, at most 10000, got 0."),
        (
            "normalise",
            "method",
            "locale",
            "one of global, local, off, got 'locale'. Did you mean",
        ),
        ("normalise", "method", True, "needs one of global, local, off, got true."),
        (
            "normalise",
            "percentiles",
            [1],
            "auto or a list of 2 numbers, as [1, 99], got [1].",
        ),
        ("normalise", "percentiles", [1, 2, 3], "a list of 2 numbers, as [1, 99], got [1, 2, 3]."),
        ("normalise", "percentiles", [1, "99"], "needs a number, got '99'. As a number it is writ"),
        ("normalise", "percentiles", [99, 1], "needs the lower value first, got [99, 1]."),
        ("normalise", "percentiles", [1, 101], "needs percentiles from 0 to 100, got [1, 101]."),
        ("normalise", "range", [5, 5], "needs the lower value first, got [5, 5]."),
        ("normalise", "local_px", 8, "needs a whole number of 16 or more, got 8."),
        (
            "tiles",
            "window_px",
            32,
            "auto or a whole number of 64 or more, at most 8192, got",
        ),
        ("tiles", "core_px", [0.5, 1], "needs a whole number of 0 or more, got 0.5."),
        ("tiles", "batches", 3, "needs keys with values (key: ...), got 3."),
        ("stitch", "plane_iou", 0, "needs a number above 0, at most 1, got 0."),
        ("stitch", "plane_iou", 1.5, "needs a number above 0, at most 1, got 1.5."),
        ("measure", "channels", "DAPI", "needs all or a list of names or numbers, got 'DAPI'."),
        ("measure", "channels", [1.5], "needs a whole number of 0 or more or text, got 1.5."),
        ("resources", "memory_gb", "3GB", "got '3GB'. Leave out 'GB': the key's name says the un"),
        ("resources", "device", "gpu", "needs one of auto, cpu, cuda, got 'gpu'."),
        ("resources", "threads", 0, "needs auto or a whole number of 1 or more, at most 4096, got"),
        ("output", "export", ["rois"], "needs one of csv, geojson, got 'rois'."),
        ("output", "export", "csv", "needs a list of words out of csv, geojson, got 'csv'."),
        ("output", "into_image", "no", "needs true or false, got 'no'."),
        ("output", "dir", 7, "needs text, got 7. Quote it."),
        ("output", "dir", "s3://bucket/x", "needs a folder that can be written, got the URL"),
    ],
)
def test_values_of_the_wrong_kind(section, key, value, words):
    given = {**LEAST, section: {**LEAST.get(section, {}), key: value}}
    text = said(given)
    assert re.match(rf"{section}\.{key}(\[\d\])? needs ", text)
    assert words in text
    assert "\n" not in text
    assert not re.search(r"pydantic|https?://|input_|type=|Value error", text)


def test_a_section_that_is_no_mapping():
    assert said({**LEAST, "segment": [1]}) == "segment needs keys with values (key: ...), got [1]."
    assert said({**LEAST, "images": {"path": "a"}}).startswith("images needs a list")
    assert said({**LEAST, "images": []}) == "images needs a list of entries (path: ...), got []."
    assert said({**LEAST, "targets": {}}).startswith("targets needs ")
    assert said({"output": {"dir": "x"}}).startswith("images is missing: it needs a list of")
    assert said({**LEAST, "output": None}).startswith("output.dir is missing")


def test_what_is_no_experiment(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_experiment(tmp_path / "none.yaml")
    with pytest.raises(FileNotFoundError, match="is a folder"):
        load_experiment(tmp_path)
    end = "needs keys with values, at least images and output, got"
    assert refusal(tmp_path, "") == f"my.yaml:  {end} nothing.".replace("  ", " ")
    assert refusal(tmp_path, "# only this\n").endswith(f"{end} nothing.")
    assert refusal(tmp_path, "- path: a.tif\n").endswith(f"{end} a list.")
    assert refusal(tmp_path, "just text\n").endswith(f"{end} a str.")
    assert said({}).endswith("got nothing.")


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("images:\n\t- path: x\n", "my.yaml:2:1: is no YAML: "),
        ("images: [1\noutput: 2\n", "my.yaml:2:7: is no YAML: expected ',' or ']', but got ':'."),
        ("a: b: c\n", "my.yaml:1:5: is no YAML: mapping values are not allowed here."),
        ("a: 'x\n", "my.yaml:2:1: is no YAML: found unexpected end of stream"),
        ("a: *x\n", "my.yaml:1:4: is no YAML: found undefined alias 'x'."),
        ("a: 1\n---\na: 2\n", "my.yaml:2:1: is no YAML: but found another document."),
        ("a: 1\nb: \x00\n", "my.yaml:2:4: is no YAML: a character that is no text."),
        ("a: &x [*x]\n", "my.yaml: needs an experiment, got values nested too deeply."),
        ("[" * 5000, "my.yaml: needs an experiment, got values nested too deeply."),
    ],
)
def test_what_is_no_yaml_is_said_in_one_line(tmp_path, text, start):
    said = refusal(tmp_path, text)
    assert said.startswith(start)
    assert "\n" not in said
    assert ("Indent by spaces" in said) == ("\t" in text)


def test_a_file_in_another_encoding(tmp_path):
    file = tmp_path / "my.yaml"
    file.write_bytes(HEAD.encode() + b"engine: caf\xe9\n")
    with pytest.raises(ConfigError, match=r"my.yaml:3: needs text in UTF-8, got other bytes."):
        load_experiment(file)
    file.write_bytes(b"\xef\xbb\xbf" + HEAD.encode())
    assert load_experiment(file).engine == "snakemake"


def test_an_alias_bomb_is_refused(tmp_path):
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    text = refusal(tmp_path, "\n".join(rows))
    assert text == "my.yaml: needs an experiment, got values nested too deeply."


def test_duplicates_at_every_level(tmp_path):
    text = "images:\n- path: a.tif\n  path: b.tif\noutput: {dir: x}\ntargets:\n  a: {}\n  a: {}\n"
    assert refusal(tmp_path, text + "output: {dir: y}\n").split("\n  ")[1:] == [
        "my.yaml:3: images[0].path is given twice, in lines 2 and 3. Leave one.",
        "my.yaml:7: targets.a is given twice, in lines 6 and 7. Leave one.",
        "my.yaml:8: output is given twice, in lines 4 and 8. Leave one.",
    ]


def test_merged_keys_are_no_duplicates_and_keep_their_lines(tmp_path):
    file = tmp_path / "my.yaml"
    text = (
        "images:\n"
        "- path: a.tif\n"
        "  segment: &base\n"
        "    niter: 300\n"
        "    min_size_px: 30\n"
        "- path: b.tif\n"
        "  segment:\n"
        "    min_size_px: 40\n"
        "    <<: *base\n"
        "- path: c.tif\n"
        "  segment: *base\n"
        "output: {dir: out}\n"
    )
    file.write_text(text)
    images = load_experiment(file).images
    assert [image.segment.min_size_px for image in images] == [30, 40, 30]
    assert [image.segment.niter for image in images] == [300, 300, 300]
    said = refusal(tmp_path, text.replace("niter: 300", "niter: x").replace("40", "y"))
    assert "my.yaml:4: images[1].segment.niter" in said
    assert "my.yaml:8: images[1].segment.min_size_px" in said
    both = "segment: {<<: [{niter: 5}, {niter: 6, min_size_px: 7}]}\n"
    file.write_text(HEAD + both)
    assert load_experiment(file).segment.niter == yaml.safe_load(both)["segment"]["niter"] == 5
    assert "needs the alias of a mapping after <<" in refusal(tmp_path, HEAD + "segment: {<<: 3}\n")


def test_what_yaml_would_take_silently(tmp_path):
    assert "segment.niter needs a plain number, got 0100, which YAML reads as another" in refusal(
        tmp_path, HEAD + "segment: {niter: 0100}\n"
    )
    assert "needs a plain number, got 1:30" in refusal(tmp_path, HEAD + "segment: {niter: 1:30}\n")
    assert "tag !x" in refusal(tmp_path, HEAD + "segment: {niter: !x 3}\n")
    tagged = HEAD + "segment: !!python/object:os.system {niter: 3}\n"
    assert "tag:yaml.org,2002:python/object:os.system. Leave it out." in refusal(tmp_path, tagged)
    assert "needs text as a key, got a list or mapping" in refusal(tmp_path, HEAD + "? [a]\n: 1\n")
    long = "9" * 5000
    assert "segment.niter needs a plain value" in refusal(
        tmp_path, HEAD + f"segment: {{niter: {long}}}\n"
    )


@pytest.mark.parametrize("key", ["1", "yes", "null"])
def test_keys_that_are_no_text(tmp_path, key):
    said = {"yes": "true"}.get(key, key)
    text = refusal(tmp_path, HEAD + f"targets:\n  {key}: {{}}\n")
    assert text.startswith("my.yaml:4: targets.")
    assert text.endswith(f" needs text as a key, got {said}. Quote it.")


def test_bare_off_and_versions_are_taken_as_meant(tmp_path):
    file = tmp_path / "my.yaml"
    file.write_text(
        "images: [{path: a.tif, name: 2024-05-01}]\n"
        "output: {dir: out, ngff: 0.5}\nnormalise: {method: off}\nsegment:\ntargets:\n"
    )
    found = load_experiment(file)
    assert (found.output.ngff, found.normalise.method) == ("0.5", "off")
    assert found.images[0].name == "2024-05-01"
    assert list(found.targets) == ["nuclei"]
    same = experiment_of(yaml.safe_load(file.read_text()), source=file)  # dates, false, 0.5
    assert same == found
    file.write_text(HEAD + "targets: {a: }\nsegment: {resample: no, cellprob_threshold: 1}\n")
    found = load_experiment(file)
    assert found.targets["a"].model == "nuclei"
    assert (found.segment.resample, found.segment.cellprob_threshold) == (False, 1.0)


def test_a_mapping_goes_before_its_file_which_gives_the_lines(tmp_path):
    file = tmp_path / "my.yaml"
    file.write_text(HEAD + "segment:\n  niter: 5\n  niter: 6\n")
    given = collections.OrderedDict(yaml.safe_load(file.read_text()))
    given["segment"] = collections.OrderedDict(niter="many")
    with pytest.raises(ConfigError) as caught:
        experiment_of(given, source=str(file))
    assert [problem.path for problem in caught.value.problems] == [("segment", "niter")] * 2
    text = str(caught.value).replace(f"{tmp_path}/", "")
    assert "my.yaml:5: segment.niter is given twice, in lines 4 and 5." in text
    assert "my.yaml:5: segment.niter needs auto or a whole number of 1 or more, got 'many'" in text
    added = {**LEAST, "qc": {"flag": {"border": "x"}}}  # not in the file: no line but the first
    file.write_text(HEAD)
    with pytest.raises(ConfigError, match=r"my.yaml:1: qc.flag.border needs one of keep, flag, g"):
        experiment_of(added, source=file)


def test_mappings_of_other_programs(tmp_path):
    given = {
        "images": ({"path": tmp_path / "a.tif", "name": datetime.date(2024, 5, 1)},),
        "output": {"dir": tmp_path},
    }
    found = experiment_of(given)
    assert (found.images[0].path, found.images[0].name) == (f"{tmp_path}/a.tif", "2024-05-01")
    assert found.output.dir == str(tmp_path)


def test_unicode_everywhere(tmp_path):
    file = tmp_path / "größe.yaml"
    file.write_text(
        "images: [{path: données/細胞.tif, channels: [β-actin]}]\noutput: {dir: é}\n"
        "targets: {zellen_ä: {}}\n",
        encoding="utf-8",
    )
    found = load_experiment(file)
    assert found.images[0].path.endswith("/données/細胞.tif")
    assert found.images[0].channels == ("β-actin",)
    assert list(found.targets) == ["zellen_ä"]
    assert "größe.yaml:3: targets.ü.µ is no known key" in refusal_of(
        file, HEAD + "targets: {ü: {µ: 1}}\n"
    )


def refusal_of(file, text):
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_experiment(file)
    return str(caught.value)


def test_nothing_can_be_changed_later():
    found = experiment_of(LEAST)
    with pytest.raises(ValueError, match="frozen"):
        found.segment.niter = 5
    with pytest.raises(ValueError, match="frozen"):
        found.engine = "dask"
    assert pickle.loads(pickle.dumps(found)) == found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "method: median\n  sigma_px: 2",
            "5: restore.sigma_px needs method gaussian, got meth",
        ),
        (
            "method: gaussian\n  model: best",
            "5: restore.model needs method network, got meth",
        ),
        ("method: median\n  diameter_um: 8", "5: restore.diameter_um needs method network, got"),
        ("size_px: 5", "4: restore.size_px needs method median, got method network."),
        ("method: median\n  size_px: 4", "5: restore.size_px needs an odd number, got 4."),
        ("method: gaussian\n  sigma_px: 0", "5: restore.sigma_px needs a number above 0, at most"),
        (
            "diameter_um: 8\n  diameter_px: 9",
            "5: restore.diameter_px needs to be the only one",
        ),
        (
            "channels: [0, grey]",
            "4: restore.channels needs channels of the image itself, got",
        ),
        ("channels: [1, 1]", "4: restore.channels needs each channel once."),
        (
            "channels: [0, 1]\n  offset: [5]",
            "5: restore.offset needs a number, or one for each",
        ),
        (
            "window_px: 64\n  overlap_px: 40",
            "5: restore.overlap_px needs at most half of",
        ),
        ("method: blur", "4: restore.method needs one of network, gaussian, median, got 'blur'."),
    ],
)
def test_what_does_not_fit_together_in_restore(tmp_path, text, words):
    assert refusal(tmp_path, f"{HEAD}restore:\n  {text}\n").startswith(f"my.yaml:{words}")


def test_what_restores_is_what_the_method_looks_at(tmp_path):
    file = tmp_path / "my.yaml"
    for text, wanted in (
        ("", None),
        ("restore:\n", None),
        ("restore: {method: median, size_px: 5}\n", ({"method": "median", "size_px": 5}, None)),
        ("restore: {method: gaussian}\n", ({"method": "gaussian", "sigma_px": 1.0}, None)),
        (
            "restore: {model: m, channels: [0], offset: 90, diameter_um: 8, window_px: auto}\n",
            ({"method": "network", "channels": (0,), "offset": 90.0, "overlap_px": 48}, 8.0),
        ),
    ):
        file.write_text(HEAD + text)
        loaded = load_experiment(file)
        for chosen in (loaded, experiment_of(yaml.safe_load(dump(loaded)))):
            found = settings_of(chosen, chosen.images[0], "nuclei").restore
            assert (found and (found.settings, found.diameter_um)) == wanted
            assert found is None or found.model == ("m" if "model: m" in text else None)
