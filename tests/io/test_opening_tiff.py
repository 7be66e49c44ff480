"""TIFF opened box by box: tiles, strips, pyramids, series, several files, damage."""

import os
import pickle
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from cellseg_pipe.geometry import Box
from cellseg_pipe.io import _segments
from cellseg_pipe.io.opening import open_image
from cellseg_pipe.io.reading import read_image

rng = np.random.default_rng(0)
GREY = rng.integers(0, 60_000, (150, 170), dtype=np.uint16)
COLOUR = rng.integers(0, 255, (150, 170, 3), dtype=np.uint8)
STACK = rng.integers(0, 60_000, (6, 150, 170), dtype=np.uint16)
BOXES = [
    Box((0, 0), (1, 1)),
    Box((149, 169), (150, 170)),
    Box((17, 30), (120, 161)),
    Box((0, 0), (150, 170)),
]


class Counting:
    """Counts the pieces that are decoded."""

    def __init__(self, monkeypatch):
        self.count = 0
        decoded = _segments.PagesSource._decoded

        def counted(source, page, segment):
            self.count += 1
            return decoded(source, page, segment)

        monkeypatch.setattr(_segments.PagesSource, "_decoded", counted)


@pytest.mark.parametrize(
    "how",
    [
        {"tile": (32, 48)},
        {"tile": (32, 48), "compression": "zlib", "predictor": True},
        {"tile": (32, 48), "compression": "lzw", "byteorder": ">"},
        {"tile": (32, 48), "bigtiff": True, "compression": "zstd"},
        {"rowsperstrip": 7, "compression": "zlib"},
        {"rowsperstrip": 7},
        {"rowsperstrip": 150, "compression": "packbits"},
        {"byteorder": ">"},
        {"bitspersample": 12, "photometric": "minisblack"},
    ],
    ids=str,
)
def test_boxes_of_all_layouts(tmp_path, how):
    pixels = GREY % 4096 if "bitspersample" in how else GREY
    tifffile.imwrite(tmp_path / "a.tif", pixels, **how)
    image = open_image(tmp_path / "a.tif")
    for box in BOXES:
        found = image.read(box)
        np.testing.assert_array_equal(found, pixels[box.slices][None])
        assert found.dtype == np.uint16 and found.dtype.isnative and found.flags.writeable
    plain = not {"compression", "bitspersample", "predictor", "tile"} & set(how)
    assert image.in_place == ("tile" in how or plain)
    assert image.chunk == ((32, 48) if "tile" in how else (150, 170) if plain else None)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").pixels, tifffile.imread(
        tmp_path / "a.tif")[None])  # fmt: skip


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("how", [{}, {"tile": (32, 32)}, {"compression": "zlib"}], ids=str)
def test_boxes_of_colours(tmp_path, planar, how):
    planes = np.moveaxis(COLOUR, -1, 0)
    stored = COLOUR if planar == "contig" else np.ascontiguousarray(planes)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", planarconfig=planar, **how)
    image = open_image(tmp_path / "a.tif")
    assert image.rgb and image.n_channels == 3
    for box in BOXES:
        np.testing.assert_array_equal(image.read(box), planes[(slice(None), *box.slices)])


def test_opacity_is_never_read(tmp_path):
    layers = rng.integers(0, 255, (150, 170, 4), dtype=np.uint8)
    tifffile.imwrite(
        tmp_path / "a.tif", layers, photometric="rgb", extrasamples=["unassalpha"], tile=(32, 32)
    )
    image = open_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(image.read(BOXES[2])[2], layers[17:120, 30:161, 2])
    assert image.rgb and image.n_channels == 3
    grey = {"photometric": "minisblack", "extrasamples": ["unassalpha"], "tile": (32, 32)}
    tifffile.imwrite(tmp_path / "b.tif", layers[..., :2], **grey)
    image = open_image(tmp_path / "b.tif")
    np.testing.assert_array_equal(image.read(BOXES[2])[0], layers[17:120, 30:161, 0])
    assert image.chunk == (32, 32)


@given(data=st.data())
def test_any_box_of_a_tiled_stack(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "stack.tif"
    if not path.exists():
        about = {"axes": "ZYX"}
        tifffile.imwrite(path, STACK, tile=(48, 32), compression="zlib", metadata=about)
    image = open_image(path, axes="zyx")
    ends = [sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n)))) for n in STACK.shape]
    box = Box(tuple(a for a, _ in ends), tuple(b for _, b in ends))
    np.testing.assert_array_equal(image.read(box)[0], STACK[box.slices])


def test_only_the_tiles_of_a_box_are_decoded_and_once(tmp_path, monkeypatch):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK, tile=(32, 32), compression="zlib", metadata={"axes": "ZYX"})
    image, counting = open_image(path, axes="zyx"), Counting(monkeypatch)
    box = Box((2, 32, 40), (4, 96, 70))
    image.read(box)
    assert counting.count == 2 * 2 * 2
    image.read(box)
    assert counting.count == 2 * 2 * 2


def test_the_cache_is_bounded_but_keeps_one_page(tmp_path, monkeypatch):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK, compression="zlib", rowsperstrip=150, metadata={"axes": "ZYX"})
    image, counting = open_image(path, axes="zyx"), Counting(monkeypatch)
    image._source.cache.limit_bytes = 1000
    for row in range(0, 150, 30):
        image.read(Box((2, row, 0), (3, row + 30, 170)))
    assert counting.count == 1 and len(image._source.cache.held) == 1


def test_threads_and_other_processes(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", GREY, tile=(16, 16), compression="zlib")
    image = pickle.loads(pickle.dumps(open_image(tmp_path / "a.tif")))
    boxes = [Box((y, x), (y + 50, x + 60)) for y in range(0, 100, 9) for x in range(0, 110, 9)]
    with ThreadPoolExecutor(8) as pool:
        for box, found in zip(boxes, pool.map(image.read, boxes), strict=True):
            np.testing.assert_array_equal(found[0], GREY[box.slices])


def pyramid(path, *, ome, **how):
    """Write three levels as the programs do: OME in sub-directories, scanners one by one."""
    levels = [COLOUR, COLOUR[::2, ::2], COLOUR[::4, ::4]]
    about = {"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5} if ome else None
    options = {"photometric": "rgb", "tile": (32, 32), "compression": "zlib", **how}
    with tifffile.TiffWriter(path, ome=ome) as writer:
        if ome:
            writer.write(levels[0], subifds=2, metadata=about, **options)
            for level in levels[1:]:
                writer.write(level, subfiletype=1, **options)
        else:
            said = "Aperio Image Library v11\n170x150|AppMag = 20|MPP = 0.4990"
            writer.write(levels[0], description=said, metadata=None, **options)
            for number, level in enumerate(levels[1:]):
                # The second picture of such a file is its thumbnail, in strips.
                if number == 0:
                    writer.write(level, metadata=None, photometric="rgb", description=said)
                writer.write(level, metadata=None, description=said, **options)
    return levels


@pytest.mark.parametrize(("name", "kind"), [("a.ome.tif", "OME-TIFF"), ("a.svs", "SVS")])
def test_levels(tmp_path, name, kind):
    levels = pyramid(tmp_path / name, ome=kind == "OME-TIFF")
    fine = (0.5, 0.25) if kind == "OME-TIFF" else (0.499, 0.499)
    for number, level in enumerate(levels):
        image = open_image(tmp_path / name, level=number)
        assert (image.n_levels, image.format, image.rgb) == (3, kind, True)
        wanted = [f * n / m for f, n, m in zip(fine, COLOUR.shape, level.shape, strict=False)]
        assert image.spacing_um == pytest.approx(wanted)
        np.testing.assert_array_equal(
            image.read(Box((3, 5), (30, 40))), np.moveaxis(level[3:30, 5:40], -1, 0)
        )
        np.testing.assert_array_equal(
            read_image(tmp_path / name, level=number).pixels, np.moveaxis(level, -1, 0)
        )
    with pytest.raises(ValueError, match="has levels 0 to 2, asked for 3"):
        open_image(tmp_path / name, level=3)


def test_an_imagej_hyperstack_of_times(tmp_path):
    pixels = rng.integers(0, 1000, (3, 5, 2, 20, 30), dtype=np.uint16)
    about = {"axes": "TZCYX", "spacing": 2.0, "unit": "um", "Labels": ["a", "b"] * 15}
    tifffile.imwrite(tmp_path / "a.tif", pixels, imagej=True, resolution=(4, 2), metadata=about)
    image = open_image(tmp_path / "a.tif")
    assert (image.n_times, image.n_channels, image.shape) == (3, 2, (5, 20, 30))
    assert image.in_place and image.chunk == (1, 20, 30) and image.format == "ImageJ TIFF"
    assert image.spacing_um == pytest.approx((2.0, 0.5, 0.25))
    for time in range(3):
        found = image.read(Box((1, 2, 3), (4, 19, 28)), t=time)
        np.testing.assert_array_equal(found, pixels[time, 1:4, :, 2:19, 3:28].swapaxes(0, 1))


def test_a_series_of_another_kind(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(GREY)
        writer.write(COLOUR, photometric="rgb", tile=(32, 32))
    second = open_image(tmp_path / "a.tif", series=1)
    assert second.rgb and second.chunk == (32, 32)
    np.testing.assert_array_equal(second.read(Box.of((150, 170))), np.moveaxis(COLOUR, -1, 0))
    assert second.identity != open_image(tmp_path / "a.tif").identity


OME = """<?xml version="1.0" encoding="UTF-8"?>
<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:{own}">
<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="170"
SizeY="150" SizeC="1" SizeZ="3" SizeT="1" BigEndian="false"><Channel ID="Channel:0"
SamplesPerPixel="1"/>{planes}</Pixels></Image></OME>"""
PLANE = """<TiffData FirstZ="{z}" IFD="0" PlaneCount="1"><UUID FileName="{z}.ome.tif"
>urn:uuid:{z}</UUID></TiffData>"""


def spread(folder, **how):
    planes = "".join(PLANE.format(z=z) for z in range(3))
    for z in range(3):
        text = OME.format(own=z, planes=planes)
        tifffile.imwrite(folder / f"{z}.ome.tif", STACK[z], description=text, metadata=None, **how)


@pytest.mark.parametrize("how", [{}, {"compression": "zlib"}, {"tile": (32, 32)}], ids=str)
def test_an_image_in_several_files(tmp_path, how):
    spread(tmp_path, **how)
    for first in range(3):
        image = open_image(tmp_path / f"{first}.ome.tif")
        assert image.shape == (3, 150, 170) and image.in_place == (how.get("compression") is None)
        np.testing.assert_array_equal(
            image.read(Box((1, 3, 4), (3, 99, 88)))[0], STACK[1:3, 3:99, 4:88]
        )
    before = open_image(tmp_path / "0.ome.tif").identity
    os.utime(tmp_path / "2.ome.tif", ns=(1, 2**61))
    assert open_image(tmp_path / "0.ome.tif").identity != before


def test_an_image_of_which_a_file_is_missing(tmp_path):
    spread(tmp_path)
    os.remove(tmp_path / "1.ome.tif")
    with pytest.raises(ValueError, match="3 planes over several files, and 1 of them are missing"):
        open_image(tmp_path / "0.ome.tif")


def test_a_part_that_does_not_know_the_whole(tmp_path):
    text = '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1">'
    text += '<BinaryOnly MetadataFile="master.ome.tif" UUID="urn:uuid:2"/></OME>'
    tifffile.imwrite(tmp_path / "b.ome.tif", GREY, description=text, metadata=None)
    with pytest.raises(ValueError, match=r"one part.*metadata are in master\.ome\.tif. Open that"):
        open_image(tmp_path / "b.ome.tif")
    found = open_image(tmp_path / "b.ome.tif", axes="yx").read(Box.of(GREY.shape))
    np.testing.assert_array_equal(found[0], GREY)


def test_tiles_that_were_left_out_are_background(tmp_path):
    pixels = np.zeros((96, 96), np.uint8)
    pixels[:32, :32] = 5
    tifffile.imwrite(tmp_path / "a.tif", pixels, tile=(32, 32), compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as file:
        sizes = list(file.pages[0].databytecounts)
        sizes[4] = 0
        offsets = list(file.pages[0].dataoffsets)
        offsets[4] = 0
        file.pages[0].tags["TileByteCounts"].overwrite(sizes)
        file.pages[0].tags["TileOffsets"].overwrite(offsets)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").pixels[0], pixels)


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("how", [{}, {"tile": (32, 32), "compression": "zlib"}], ids=str)
def test_a_cut_file_is_refused_when_it_is_opened(tmp_path, how, kept):
    tifffile.imwrite(tmp_path / "a.tif", STACK, **how)
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(ValueError, match="cannot be read as TIFF") as caught:
        open_image(tmp_path / "a.tif")
    assert "\n" not in str(caught.value)


@given(data=st.data())
@settings(max_examples=200)
def test_damaged_bytes_never_raise_what_is_not_understood(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp()
    whole = folder / "whole.ome.tif"
    if not whole.exists():
        about = {"axes": "CYX", "PhysicalSizeX": 0.5}
        tifffile.imwrite(whole, STACK[:2], tile=(32, 32), compression="zlib", metadata=about)
    content = bytearray(whole.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        front = data.draw(st.booleans())  # most of what matters lies there
        place = data.draw(st.integers(0, 1500 if front else len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    path = folder / "damaged.ome.tif"
    path.write_bytes(content)
    try:
        image = open_image(path)
        if max(image.shape) < 1000 and image.n_channels < 10 and image.n_times < 10:
            image.read(Box.of(image.shape))
    except (ValueError, OSError) as error:
        assert re.search(re.escape(str(path)), str(error)) and "\n" not in str(error)


def test_npy_is_mapped(tmp_path):
    np.save(tmp_path / "a.npy", STACK.astype(">u2"))
    image = open_image(tmp_path / "a.npy", axes="zyx")
    assert isinstance(image._source.pixels, np.memmap) and image.in_place
    found = image.read(Box((1, 2, 3), (4, 50, 60)))
    np.testing.assert_array_equal(found[0], STACK[1:4, 2:50, 3:60])
    assert found.dtype.isnative and image.chunk == (1, 150, 170)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell")
def test_of_a_mapped_file_nothing_stays_mapped(tmp_path):
    """What is mapped counts as memory of the job that reads: slabs across all planes touch all."""
    planes = np.zeros((96, 512, 512), np.uint16)
    planes[:, :, 7] = np.arange(96)[:, None]
    tifffile.imwrite(tmp_path / "a.tif", planes, photometric="minisblack")  # 50 MB
    reading = """
import re, sys
from pathlib import Path
from cellseg_pipe.geometry import Box
from cellseg_pipe.io.opening import open_image

def mapped_kb():
    return int(re.search(r"RssFile:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])

image = open_image(sys.argv[1], axes="zyx")
image.read(Box((0, 0, 0), (1, 1, 1)))
before = mapped_kb()
found = image.read(Box((0, 0, 0), (96, 512, 9)))
print(mapped_kb() - before, found[0, 95, 300, 7])
"""
    command = [sys.executable, "-c", reading, str(tmp_path / "a.tif")]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    more_kb, value = said.stdout.split()
    assert value == "95" and int(more_kb) < 5_000


def test_pictures_are_read_whole(tmp_path):
    from PIL import Image as Pictures

    Pictures.fromarray(COLOUR).save(tmp_path / "a.png")
    image = open_image(tmp_path / "a.png")
    assert (image.in_place, image.chunk, image.rgb, image.format) == (False, None, True, "PNG")
    np.testing.assert_array_equal(image.read(BOXES[2])[1], COLOUR[17:120, 30:161, 1])
