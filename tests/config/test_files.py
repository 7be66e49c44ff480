"""The files that come with the package are in step with the code: schema, config, examples."""

import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from cellseg_pipe.config import Evaluate, Experiment, dump, experiment_of, load_experiment, schema
from cellseg_pipe.config._restoring import Restore
from cellseg_pipe.config._sections import Relate, Target
from cellseg_pipe.config.experiment import ImageEntry

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "config"
EXAMPLES = (
    *("slide-2d", "light-sheet-3d", "stack-of-planes", "folder-of-images", "regions"),
    *("nuclei-and-cells", "dask-on-slurm", "noisy-images"),
)
FILES = [CONFIG / "config.yaml", *(CONFIG / "examples" / f"{name}.yaml" for name in EXAMPLES)]


def test_the_schema_is_the_one_of_the_code(tmp_path):
    file = ROOT / "workflow" / "schemas" / "config.schema.json"
    assert json.loads(file.read_text()) == schema(), "run: python -m cellseg_pipe.config"
    made = tmp_path / "new" / "schema.json"
    subprocess.run([sys.executable, "-m", "cellseg_pipe.config", made], check=True)
    assert made.read_text(encoding="utf-8") == file.read_text(encoding="utf-8")


def test_every_key_is_described():
    parts = [schema(), *schema()["$defs"].values()]
    keys = {name: about for part in parts for name, about in part["properties"].items()}
    assert len(keys) > 60
    said = {
        name: about.get("description")
        or schema()["$defs"][about["$ref"].rpartition("/")[2]]["description"]
        for name, about in keys.items()
    }
    assert all(len(text) > 5 and "\n" not in text for text in said.values())
    assert said["niter"].startswith("Steps along the flow;")
    assert all(part["additionalProperties"] is False for part in parts)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_files_load_fit_the_schema_and_point_at_it(file):
    text = file.read_text()
    where = re.match(r"# yaml-language-server: \$schema=(\S+)\n", text)[1]
    about = json.loads((file.parent / where).read_text())
    validator = jsonschema.Draft202012Validator(about)
    assert [error.message for error in validator.iter_errors(yaml.safe_load(text))] == []
    experiment = load_experiment(file)
    assert experiment_of(yaml.safe_load(dump(experiment))) == experiment
    assert not list(validator.iter_errors(json.loads(json.dumps(yaml.safe_load(dump(experiment))))))


def test_the_schema_finds_what_the_models_refuse():
    validator = jsonschema.Draft202012Validator(schema())
    least = {"images": [{"path": "a"}], "output": {"dir": "b"}}
    assert validator.is_valid(least)
    for wrong in (
        {"segment": {"nitre": 1}}, {"segment": {"niter": 0}}, {"normalise": {"method": True}},
        {"images": []}, {"engine": "slurm"}, {"normalise": {"range": [1]}}, {"output": {}},
    ):  # fmt: skip
        assert not validator.is_valid({**least, **wrong}), wrong
    assert validator.is_valid({**least, "normalise": {"method": False}, "output": {
        "dir": "b", "ngff": 0.5}})  # fmt: skip


def test_config_yaml_is_the_demo():
    found = load_experiment(CONFIG / "config.yaml")
    assert [Path(image.path).parts[-2:] for image in found.images] == [("demo", "2d.ome.zarr")]
    assert Path(found.output.dir).parts[-2:] == ("results", "demo")
    assert "demo/2d.ome.zarr" in (CONFIG / "config.yaml").read_text()
    # What it sets beside the demo's are the defaults: nothing is changed in passing.
    plain = experiment_of({
        "images": [{"path": found.images[0].path}], "output": {"dir": found.output.dir},
        "targets": {"nuclei": {"channels": [0]}},
    })  # fmt: skip
    assert found == plain


def test_keys_in_comments_of_config_yaml_can_be_switched_on(tmp_path):
    text = (CONFIG / "config.yaml").read_text()
    on = re.sub(r"^(\s+)# (\w+: )", r"\1\2", text, flags=re.M)
    assert on != text
    (tmp_path / "on.yaml").write_text(on)
    found = load_experiment(tmp_path / "on.yaml")
    assert found.images[0].spacing_um == (0.5, 0.5)
    assert found.output.export == ("csv", "geojson")
    assert found.targets["cells"].expand == found.relate.nuclei == "nuclei"


def table_rows():
    """Return key -> default of the tables in README.md, with the section before the key."""
    rows, section = {}, ""
    for line in (CONFIG / "README.md").read_text().splitlines():
        if named := re.match(r"`(\w+)`(?!.*need)", line):
            section = named[1] if "`, `" not in line else ""
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) == 6 and cells[1].startswith("`"):
            key = cells[1].strip("`")
            rows[f"{section}.{key}".strip(".")] = cells[2]
    return rows


def defaults(model, prefix=""):
    for name, field in model.model_fields.items():
        value = field.get_default(call_default_factory=True)
        if hasattr(value, "model_fields_set"):
            yield from defaults(type(value), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", "" if field.is_required() else value


def test_the_readme_has_every_key_with_its_default():
    known = {f"images.{key}": value for key, value in defaults(ImageEntry)}
    known |= {f"targets.{key}": value for key, value in defaults(Target)}
    rest = dict(defaults(Experiment))
    known |= {f"output.{k}": v for k, v in defaults(Experiment.model_fields["output"].annotation)}
    known |= {f"evaluate.{key}": value for key, value in defaults(Evaluate)}
    known |= {f"relate.{key}": value for key, value in defaults(Relate)}
    known |= {f"restore.{key}": value for key, value in defaults(Restore)}
    apart = ("images", "output", "targets", "evaluate", "relate", "restore")
    known |= {key: rest[key] for key in rest if key not in apart}
    rows = table_rows()
    assert sorted(rows) == sorted(known)
    said = {key: yaml.safe_load(text or "''") for key, text in rows.items()}
    assert said == {key: list(v) if isinstance(v, tuple) else v for key, v in known.items()}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_what_snakemake_reads_is_the_same_experiment(file):
    configfile = pytest.importorskip("snakemake.common.configfile")
    assert experiment_of(configfile.load_configfile(file), source=file) == load_experiment(file)
