"""Every store and file of other programs: each image in it is read as its own library reads it,
or refused in one line; skipped where the files do not lie beside the checkout."""

import json
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from cellseg_pipe.geometry import Box
from cellseg_pipe.io.opening import open_image
from cellseg_pipe.io.reading import read_image

FOREIGN = Path(__file__).parents[3] / "shared" / "data" / "interop"
pytestmark = pytest.mark.skipif(not FOREIGN.is_dir(), reason="needs ../shared/data/interop")

# archive -> how many images are read, and what is refused with which words
STORES = {
    "fijijava_2d_testing": (2, {}),
    "fijijava_3d_testing": (6, {}),
    "fijijava_4d_testing": (6, {}),
    "fijijava_5d_testing": (2, {}),
    "fijijava_bioformats2raw_testing": (2, {}),
    "fijijava_pyramid_testing": (2, {}),
    "fijijava_single_resolution_testing": (1, {}),
    "mobie_skimage_2dt": (2, {}),
    "neuroglancer_omezarr": (
        9,
        {"ome_zarr/all_0.6/axis_dependent/mapAxis.zarr": "needs a name for each of its 3 axes"},
    ),
    "ngio_v04": (18, {}),
    "omezarrexamples_valid": (8, {}),
    "omezarrexamples_warning": (1, {}),
    "omezarrmodels_examples": (3, {}),
    "omezarrpy_testdata": (2, {}),
    "viv_bioformats_zarr": (1, {}),
    "viv_omezarr": (2, {}),
    "vitessce_spatialdata_0.3": (4, {}),
}

# groups that are no image: what is said of those in them
ROOTS = [
    (
        "fijijava_bioformats2raw_testing",
        "bioformats2raw_testing/bf2raw_dataset_v5.ome.zarr",
        "has no multiscales.*here: 0, 1",
    ),
    ("omezarrexamples_valid", "valid/plate-01.zarr", "is a plate.*A/1/0, A/2/0, B/1/0, B/2/0"),
    ("omezarrexamples_valid", "valid/plate-01.zarr/A/1", "here: 0"),
    ("omezarrmodels_examples", "examples/v04/hcs_example.ome.zarr", "is a plate.*B/03/0"),
    ("omezarrmodels_examples", "examples/v06/stitched_tiles_2d.zarr", "here: tile_0, tile_1"),
    ("ngio_v04", "v04/images/test_image_yx.zarr/labels", "here: label"),
    (
        "vitessce_spatialdata_0.3",
        "blobs.sdata.zarr",
        "images/blobs_image, images/blobs_multiscale_image, labels/blobs_labels",
    ),
    ("ngio_v04", "v04/images/test_image_yx.zarr/tables", "groups here: well_ROI_table"),
    ("vitessce_spatialdata_0.3", "blobs.sdata.zarr/tables/table/X/data", "plain Zarr array"),
]


def unpack(archive, folder):
    with zipfile.ZipFile(FOREIGN / f"{archive}.zip") as packed:
        packed.extractall(folder)
    for path in folder.rglob("[0-9]*"):  # links, which were packed as text: where they point
        if path.is_file() and path.stat().st_size < 60 and path.read_bytes()[:3] == b"../":
            path.write_bytes((path.parent / path.read_text().strip()).read_bytes())
    return folder


def images(folder):
    """Return all groups with multiscales, found without the code under test."""
    found = {}
    for path in sorted([*folder.rglob(".zattrs"), *folder.rglob("zarr.json")]):
        about = json.loads(path.read_text())
        about = about.get("attributes", {}) if path.name == "zarr.json" else about
        about = about.get("ome", about)
        if "multiscales" in about:
            found[path.parent] = [level["path"] for level in about["multiscales"][0]["datasets"]]
    return found


def by_zarr(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old programs wrote an empty list of filters
        return zarr.open_array(path, mode="r")


def corners(shape):
    """Return the first and the last voxel, and a box that crosses chunks."""
    last = Box(tuple(n - 1 for n in shape), shape)
    middle = Box(tuple(n // 3 for n in shape), tuple(min(n, n // 3 + 70) for n in shape))
    return [Box((0,) * len(shape), (1,) * len(shape)), last, middle]


def expected(array, axes, box, spatial, time):
    """Return a box as zarr-python gives it, channels first."""
    index = []
    for axis in axes:
        if axis in spatial:
            index.append(box.slices[spatial.index(axis)])
        else:
            index.append({"t": slice(time, time + 1), "z": slice(0, 1)}.get(axis, slice(None)))
    pixels = np.asarray(array[tuple(index)])
    kept = [axis for axis in "c" if axis in axes] + list(spatial)
    dropped = tuple(i for i, axis in enumerate(axes) if axis not in kept)
    left = [axis for axis in axes if axis in kept]
    pixels = pixels.squeeze(dropped).transpose([left.index(axis) for axis in kept])
    return pixels if "c" in axes else pixels[None]


def assert_same(opened, array):
    for box in corners(opened.shape):
        for time in {0, opened.n_times - 1}:
            found = opened.read(box, t=time)
            wanted = expected(array, opened.file_axes, box, opened.spatial, time)
            assert found.dtype == wanted.dtype.newbyteorder("=") and found.dtype.isnative
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("archive", STORES)
def test_every_image_of_a_store(tmp_path, archive):
    n_read, refused = STORES[archive]
    count = 0
    for path, levels in images(unpack(archive, tmp_path)).items():
        name = path.relative_to(tmp_path).as_posix()
        if name in refused:
            with pytest.raises(ValueError, match=refused[name]) as caught:
                open_image(path)
            assert "\n" not in str(caught.value) and str(path) in str(caught.value)
            continue
        for level in {0, len(levels) - 1}:
            opened = open_image(path, level=level)
            assert opened.in_place and opened.n_levels == len(levels)
            assert_same(opened, by_zarr(path / levels[level]))
        count += 1
    assert count == n_read


@pytest.mark.parametrize(("archive", "root", "message"), ROOTS)
def test_what_holds_images_names_them(tmp_path, archive, root, message):
    path = unpack(archive, tmp_path) / root
    with pytest.raises(ValueError, match=message) as caught:
        open_image(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_a_folder_of_one_series_is_that_series(tmp_path):
    path = unpack("viv_bioformats_zarr", tmp_path) / "bioformats-zarr" / "data.zarr"
    opened = open_image(path)
    assert (opened.shape, opened.n_channels, opened.n_levels) == ((167, 439), 3, 2)
    array = by_zarr(path / "0" / "0")
    np.testing.assert_array_equal(opened.read(Box.of(opened.shape)), array[0, :, 0])


@pytest.mark.parametrize(
    ("kind", "spacing", "offset"),
    [
        ("basic/scale", (4, 3, 2), (0, 0, 0)),
        ("basic/sequenceScaleTranslation", (4, 3, 2), (32, 21, 10)),
        ("basic/translation", (1, 1, 1), (30, 20, 10)),
        ("basic/identity", (1, 1, 1), (0, 0, 0)),
        ("simple/anisotropic_rotation", (2, 0.5, 0.25), (0, 0, 0)),
        ("simple/rotation", None, None),
        ("simple/affine", None, None),
    ],
)
def test_places_of_version_06(tmp_path, kind, spacing, offset):
    path = unpack("neuroglancer_omezarr", tmp_path) / "ome_zarr" / "all_0.6" / f"{kind}.zarr"
    opened = open_image(path)
    assert (opened.spacing_um, opened.offset_um) == (spacing, offset)
    assert opened.format == "OME-Zarr 0.6.dev1"


# name -> shape, channels, times, in place, format
TIFFS = {
    "4D-series.ome.tif": ((5, 167, 439), 1, 7, True, "OME-TIFF"),
    "CMU-1-Small-Region.svs": ((2967, 2220), 3, 1, True, "SVS"),
    "anchor_nuclei_downsampled.tiff": ((912, 630), 1, 1, True, "TIFF"),
    "cellseg3d_c5image.tif": ((124, 86, 94), 1, 1, False, "TIFF"),
    "single-channel.ome.tiff": ((167, 439), 1, 1, True, "OME-TIFF"),
    "viv_multi-channel.ome.tif": ((167, 439), 3, 1, True, "OME-TIFF"),
    "vizgen_mosaic_Cellbound2_z3.tif": ((880, 880), 1, 1, True, "TIFF"),
    "xyc_16bit__hela-cells.tif": ((512, 672), 3, 1, True, "ImageJ TIFF"),
    "xyc_8bit__cyto_nuclei.tif": ((254, 182), 2, 1, True, "ImageJ TIFF"),
    "xyz_8bit__nuclei_autothresh.tif": ((37, 118, 132), 1, 1, True, "ImageJ TIFF"),
    "xyzc_16bit__dna_conf_wf.tif": ((45, 130, 133), 2, 1, True, "ImageJ TIFF"),
}


def test_no_file_is_forgotten():
    named = {*TIFFS, *(f"{archive}.zip" for archive in STORES)}
    assert {path.name for path in FOREIGN.iterdir()} == named


@pytest.mark.parametrize("name", TIFFS)
def test_every_tiff(name):
    opened = open_image(FOREIGN / name)
    found = (opened.shape, opened.n_channels, opened.n_times, opened.in_place, opened.format)
    assert found == TIFFS[name]
    pixels = tifffile.imread(FOREIGN / name)
    axes = opened.file_axes.replace("s", "c")
    for box in corners(opened.shape):
        for time in {0, opened.n_times - 1}:
            wanted = expected(pixels, axes, box, opened.spatial, time)
            np.testing.assert_array_equal(opened.read(box, t=time), wanted)


def test_series_and_size_of_a_whole_slide():
    path = FOREIGN / "CMU-1-Small-Region.svs"
    opened = open_image(path)
    assert opened.rgb and opened.chunk == (240, 240) and opened.spacing_um == (0.499, 0.499)
    for series, (height, width) in enumerate([(2967, 2220), (768, 574), (463, 387), (431, 1280)]):
        image = read_image(path, series=series)
        np.testing.assert_array_equal(
            image.pixels, np.moveaxis(tifffile.imread(path, series=series), -1, 0)
        )
        assert image.pixels.shape == (3, height, width)
