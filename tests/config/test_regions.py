"""What an experiment file may say of a region, and the words for what it may not."""

import pytest
import yaml

from cellseg_pipe.config import ConfigError, dump, experiment_of


def with_region(region):
    return {"images": [{"path": "a.tif", "region": region}], "output": {"dir": "out"}}


@pytest.mark.parametrize(
    "region",
    [
        "tissue.geojson",
        {"file": "mask.tif", "name": "tissue"},
        {"box_px": [[0, 0], [9, 9.5]], "exclude": ["folds.geojson"]},
        {"include": ["a.geojson", {"box_um": [[0, 0, 0], [1, 2, 3]]}], "exclude": [{"file": "b"}]},
        {"exclude": ["https://host/mask.ome.zarr"]},
    ],
)
def test_regions_are_kept_as_they_are(region, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    chosen = experiment_of(with_region(region))
    kept = chosen.images[0].region
    if isinstance(region, str):
        assert kept == str(tmp_path / region)
    else:
        given = kept.model_dump(mode="json", exclude_unset=True)
        assert yaml.safe_load(str(given).replace(f"{tmp_path}/", "")) == region
    assert experiment_of(yaml.safe_load(dump(chosen))) == chosen


@pytest.mark.parametrize(
    ("region", "message"),
    [
        ({}, r"images\[0\].region needs include, exclude or one of file, box_px, box_um"),
        ({"name": "a"}, "region.name is that of one part"),
        ({"file": "a", "box_px": [[0, 0], [1, 1]]}, "got file and box_px"),
        ({"file": "a", "include": ["b"]}, "region.include needs all that is included"),
        ({"include": [{"name": "a"}]}, r"include\[0\] needs one of .* got none"),
        ({"box_px": [[5, 5], [5, 9]]}, "box_px needs two corners .* the lower one first"),
        ({"box_px": [[0, 0], [5, 5, 5]]}, "two corners of as many numbers"),
        ({"exclude": [{"box_um": [[9, 9], [5, 5]]}]}, r"exclude\[0\].box_um needs two corners"),
        ({"box": [[9, 9], [5, 5]]}, "region.box is no known key"),
        ({"box_px": [[0, 0]]}, "box_px needs"),
        (7, "region needs"),
    ],
)
def test_what_is_no_region(region, message):
    with pytest.raises(ConfigError, match=message):
        experiment_of(with_region(region))
