"""Files of other programs, where the checkout lies beside them; skipped elsewhere."""

import zipfile
from pathlib import Path

import pytest

from cellseg_pipe.io.reading import read_image

FOREIGN = Path(__file__).parents[3] / "shared" / "data" / "interop"
pytestmark = pytest.mark.skipif(not FOREIGN.is_dir(), reason="needs ../shared/data/interop")


@pytest.mark.parametrize(
    ("name", "shape", "spatial", "spacing_um"),
    [
        ("anchor_nuclei_downsampled.tiff", (1, 912, 630), "yx", None),
        ("cellseg3d_c5image.tif", (1, 124, 86, 94), "zyx", None),
        ("single-channel.ome.tiff", (1, 167, 439), "yx", None),
        ("viv_multi-channel.ome.tif", (3, 167, 439), "yx", None),
        ("xyc_16bit__hela-cells.tif", (3, 512, 672), "yx", (0.05149314, 0.05149314)),
        ("xyc_8bit__cyto_nuclei.tif", (2, 254, 182), "yx", None),
        ("xyz_8bit__nuclei_autothresh.tif", (1, 37, 118, 132), "zyx", (4, 0.828643, 0.828643)),
        ("xyzc_16bit__dna_conf_wf.tif", (2, 45, 130, 133), "zyx", (0.499413, 0.511878, 0.511878)),
    ],
)
def test_tiffs(name, shape, spatial, spacing_um):
    image = read_image(FOREIGN / name)
    assert (image.pixels.shape, image.spatial, image.rgb) == (shape, spatial, False)
    assert image.spacing_um == (spacing_um and pytest.approx(spacing_um, rel=1e-5))


@pytest.mark.parametrize(
    ("archive", "store", "shape", "spacing_um"),
    [
        ("ngio_v04", "v04/images/test_image_c1yx.zarr", (2, 64, 64), (0.5, 0.5)),
        ("ngio_v04", "v04/images/test_image_czyx.zarr", (2, 10, 64, 64), (1, 0.5, 0.5)),
        ("ngio_v04", "v04/images/test_image_zyx.zarr/labels/label", (1, 10, 64, 64), (1, 0.5, 0.5)),
        ("viv_omezarr", "ome-zarr/blobs_image_v04.ome.zarr", (3, 12, 12), None),
        ("viv_omezarr", "ome-zarr/blobs_image_v05.ome.zarr", (3, 12, 12), None),
        ("omezarrpy_testdata", "data/v1", (2, 16, 16), None),
        ("neuroglancer_omezarr", "ome_zarr/simple_0.5", (1, 10, 10), (0.004, 0.03)),
    ],
)
def test_stores(tmp_path, archive, store, shape, spacing_um):
    with zipfile.ZipFile(FOREIGN / f"{archive}.zip") as packed:
        packed.extractall(tmp_path)
    image = read_image(tmp_path / store)
    assert image.pixels.shape == shape
    assert image.spacing_um == (spacing_um and pytest.approx(spacing_um))


def test_time_series_ask_for_a_choice():
    with pytest.raises(ValueError, match="7 steps along axis 't' of tzyx"):
        read_image(FOREIGN / "4D-series.ome.tif")
