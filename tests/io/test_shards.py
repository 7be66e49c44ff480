"""Shards: whole, the same bytes whoever writes them and whatever happened before."""

import hashlib
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from cellseg_pipe.geometry import Box
from cellseg_pipe.io.levels import level_grid
from cellseg_pipe.io.ngff import ImageMeta, create_label_pyramid
from cellseg_pipe.io.shards import ShardWriter, io_context, read_box

VERSIONS = pytest.mark.parametrize("version", ["0.4", "0.5"])
SHAPES = {"yx": (2100, 4200), "zyx": (150, 300, 270), "tyx": (2, 700, 2100)}


def new_store(path, axes, version, *, shape=None):
    ndim = len(axes.strip("tc"))
    meta = ImageMeta(axes, (1.0,) * ndim)
    create_label_pyramid(path, meta, shape=shape or SHAPES[axes], version=version)
    return path / "0"


def new_labels(shape, seed=0):
    """Blobs of some labels, and a lot of background."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 2**20, [n // 16 + 1 for n in shape]).astype(np.uint32)
    coarse[rng.random(coarse.shape) < 0.6] = 0
    for axis, n in enumerate(shape):
        coarse = np.repeat(coarse, 16, axis).take(np.arange(n), axis)
    return coarse


def sums(level):
    files = (file for file in level.rglob("*") if file.is_file())
    return {
        file.relative_to(level).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
    }


@VERSIONS
@pytest.mark.parametrize("axes", SHAPES)
def test_zarr_reads_what_was_written(tmp_path, axes, version):
    level = new_store(tmp_path / "a.zarr", axes, version)
    labels = new_labels(SHAPES[axes])
    writer = ShardWriter(level)
    ndim = len(axes.strip("tc"))
    assert writer.grid == level_grid(SHAPES[axes], 0, ndim=ndim) and writer.dtype == np.uint32
    for number in range(len(writer.grid)):
        written = writer.write_shard(number, labels[writer.grid.box(number).slices])
        assert written.n_files >= 1 and not written.blank
        assert writer.stored(number) == written == writer.stored(writer.grid.box(number))
    np.testing.assert_array_equal(zarr.open_array(level, mode="r")[...], labels)
    box = Box((1,) * labels.ndim, tuple(n - 1 for n in labels.shape))
    np.testing.assert_array_equal(read_box(level, box, threads=1), labels[box.slices])
    files = [file for file in level.rglob("*") if file.is_file() and file.name.isdigit()]
    n_bytes = sum(file.stat().st_size for file in files)
    assert n_bytes == sum(writer.stored(number).n_bytes for number in range(len(writer.grid)))


@VERSIONS
@settings(max_examples=30)
@given(
    st.tuples(st.integers(1, 30), st.integers(1, 30)),
    st.randoms(),
    st.integers(0, 10),
    st.booleans(),
)
def test_any_order_gives_the_same_files(tmp_path_factory, version, shape, random, seed, twice):
    labels = np.random.default_rng(seed).integers(0, 2, shape, dtype=np.uint32)
    labels *= np.random.default_rng(seed).random(shape) < 0.05
    found = []
    for shuffled in (False, True):
        path = tmp_path_factory.mktemp("any") / "a"
        array = zarr.create_array(
            path,
            shape=shape,
            dtype="uint32",
            chunks=(4, 5),
            shards=(8, 10) if version == "0.5" else None,
            zarr_format=3 if version == "0.5" else 2,
            chunk_key_encoding={
                "name": "default" if version == "0.5" else "v2", "separator": "/"
            },
        )  # fmt: skip
        writer = ShardWriter(path)
        assert writer.grid.pitch == (8, 10) or version == "0.4"
        assert all(p % c == 0 for p, c in zip(writer.grid.pitch, (4, 5), strict=True))
        numbers = list(range(len(writer.grid))) * (1 + (shuffled and twice))
        if shuffled:
            random.shuffle(numbers)
        for number in numbers:
            part = labels[writer.grid.box(number).slices]
            assert writer.write_shard(number, part).blank == (not part.any())
        np.testing.assert_array_equal(array[...], labels)
        found.append(sums(path))
    assert found[0] == found[1]


@VERSIONS
def test_what_an_earlier_attempt_left_does_not_show(tmp_path, version):
    level = new_store(tmp_path / "a.zarr", "yx", version)
    labels = new_labels(SHAPES["yx"])
    writer = ShardWriter(level)
    last = len(writer.grid) - 1
    box = writer.grid.box(last)
    first = writer.write_shard(last, labels[box.slices])
    expected = sums(level)
    other = writer.write_shard(last, labels[box.slices] + 7)
    assert other != first and sums(level) != expected
    for rubbish in (b"", b"half a sh", bytes(5000)):
        for name in expected:
            if name[-1].isdigit():
                (level / name).write_bytes(rubbish)
        assert writer.write_shard(last, labels[box.slices]) == first
        assert sums(level) == expected


@VERSIONS
def test_blank_shards_have_no_files_and_remove_old_ones(tmp_path, version):
    level = new_store(tmp_path / "a.zarr", "zyx", version)
    before = sums(level)
    writer = ShardWriter(level)
    box = writer.grid.box(3)
    blank = np.zeros(box.shape, np.uint32)
    assert writer.write_shard(3, blank).blank and sums(level) == before
    writer.write_shard(3, blank + 5)
    assert len(sums(level)) > len(before)
    written = writer.write_shard(3, blank)
    assert (written.n_files, written.n_bytes, written.crc32) == (0, 0, 0)
    assert sums(level) == before
    assert not read_box(level, box).any()


def test_a_chunk_that_became_blank_loses_its_file(tmp_path):
    level = new_store(tmp_path / "a.zarr", "yx", "0.4")
    writer = ShardWriter(level)
    labels = np.ones((2048, 2048), np.uint32)
    assert writer.write_shard(0, labels).n_files == 16
    labels[:512] = 0
    assert writer.write_shard(0, labels).n_files == 12 == writer.stored(0).n_files
    np.testing.assert_array_equal(read_box(level, writer.grid.box(0)), labels)


@VERSIONS
def test_only_whole_shards_are_written(tmp_path, version):
    level = new_store(tmp_path / "a.zarr", "yx", version)
    writer = ShardWriter(level)
    unit = 2048 if version == "0.5" else 512
    for start, stop in (
        ((0, 1), (unit, unit)),
        ((0, 0), (unit, unit - 1)),
        ((unit, unit), (unit, unit)),
        ((0, -unit), (unit, unit)),
        ((0, 0), (unit, 4201)),
    ):
        box = Box(start, stop)
        with pytest.raises(ValueError, match=rf"whole shards of \({unit}, {unit}\) voxels within"):
            writer.write_shard(box, np.ones(box.shape, np.uint32))
    edge = Box((unit, unit), (2100, 4200))
    writer.write_shard(edge, np.ones(edge.shape, np.uint32))
    assert int(zarr.open_array(level, mode="r")[...].sum()) == edge.size
    with pytest.raises(ValueError, match=r"needs uint32 of shape \(2048, 2048\) .* got int64"):
        writer.write_shard(0, np.ones((2048, 2048), np.int64))
    with pytest.raises(ValueError, match=r"got uint32 of shape \(2048, 1\)"):
        writer.write_shard(0, np.ones((2048, 1), np.uint32))
    with pytest.raises(IndexError, match="boxes 0 to 5, asked for 6"):
        writer.write_shard(6, np.ones((2048, 2048), np.uint32))


def test_threads_may_share_a_writer(tmp_path):
    level = new_store(tmp_path / "a.zarr", "tyx", "0.5")
    labels = new_labels(SHAPES["tyx"], seed=2)
    writer = ShardWriter(level, threads=2)
    boxes = [writer.grid.box(number) for number in range(len(writer.grid))]
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(writer.write_shard, box, labels[box.slices]) for box in boxes * 3]
        written = [job.result() for job in jobs]
    assert written[: len(boxes)] == written[len(boxes) : 2 * len(boxes)]
    np.testing.assert_array_equal(zarr.open_array(level, mode="r")[...], labels)


def test_numbers_of_threads_are_kept():
    assert io_context(3) is io_context(3) and io_context(3) is not io_context(2)
    assert io_context(3)["data_copy_concurrency"].to_json() == {"limit": 3}
    assert io_context(3)["file_io_concurrency"].to_json() == {"limit": 3}
    assert io_context()["cache_pool"].to_json() == {"total_bytes_limit": 64 * 2**20}
    with pytest.raises(ValueError, match="1 or more threads, got 0"):
        io_context(0)


@VERSIONS
def test_a_damaged_file_is_named(tmp_path, version):
    level = new_store(tmp_path / "a.zarr", "zyx", version)
    writer = ShardWriter(level)
    box = writer.grid.box(0)
    written = writer.write_shard(0, new_labels(box.shape) + 1)
    (name, *_) = sorted(name for name in sums(level) if name[-1].isdigit())
    whole = (level / name).read_bytes()
    for damaged in (b"", whole[:50], whole[:-1]):
        (level / name).write_bytes(damaged)
        with pytest.raises(ValueError, match=r"a.zarr/0 cannot be read at Box\(start=\(0, 0, 0\)"):
            read_box(level, Box((0, 0, 0), (3, 3, 3)))
        assert writer.stored(0) != written
    for position in range(10, 110, 7):
        flipped = bytearray(whole)
        flipped[position] ^= 4
        (level / name).write_bytes(bytes(flipped))
        assert writer.stored(0) != written
        if version == "0.5":  # of 0.4, tensorstore takes no zstd with a checksum
            with pytest.raises(ValueError, match="remove that file and run the job again"):
                read_box(level, Box((0, 0, 0), (3, 3, 3)))
    assert writer.write_shard(0, new_labels(box.shape) + 1) == written


def test_what_is_no_array_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="needs to be a zarr array, and has no zarr.json"):
        read_box(tmp_path / "no", Box((0, 0), (1, 1)))
    level = new_store(tmp_path / "a.zarr", "yx", "0.5")
    with pytest.raises(FileNotFoundError, match="Name one level of a store"):
        ShardWriter(tmp_path / "gone.zarr")
    with pytest.raises(ValueError, match=r"has shape \(2100, 4200\), asked for"):
        read_box(level, Box((0, 0), (1, 4201)))
    with pytest.raises(ValueError, match=r"has shape \(2100, 4200\), asked for"):
        read_box(level, Box((-1, 0), (1, 1)))
    zarr.create_array(tmp_path / "dots", shape=(9, 9), chunks=(3, 3), dtype="u4", zarr_format=2)
    with pytest.raises(ValueError, match=r"separator '/'\), got '\.'"):
        ShardWriter(tmp_path / "dots")
    (level / "zarr.json").write_text("{}")
    with pytest.raises(ValueError, match="cannot be opened as a zarr array"):
        read_box(level, Box((0, 0), (1, 1)))


WRITER = """
import sys
import numpy as np
from tests_labels import new_labels
from cellseg_pipe.io.shards import ShardWriter
writer = ShardWriter(sys.argv[1])
labels = new_labels(writer.grid.shape)
numbers = range(len(writer.grid))
print("ready", flush=True)
for number in reversed(numbers) if "back" in sys.argv else numbers:
    writer.write_shard(number, labels[writer.grid.box(number).slices])
"""


@pytest.mark.slow
@VERSIONS
def test_processes_write_the_same_bytes_even_after_kill_9(tmp_path, version):
    import inspect

    (tmp_path / "tests_labels.py").write_text(
        f"import numpy as np\n{inspect.getsource(new_labels)}"
    )
    script = tmp_path / "writer.py"
    script.write_text(WRITER)
    levels = [
        new_store(tmp_path / f"{name}.zarr", "yx", version, shape=(4500, 4500)) for name in "ab"
    ]
    subprocess.run([sys.executable, script, levels[0]], check=True, capture_output=True)
    for delay in (0.0, 0.02, 0.05, 0.1):
        job = subprocess.Popen([sys.executable, script, levels[1], "back"], stdout=subprocess.PIPE)
        assert job.stdout.readline() == b"ready\n"
        time.sleep(delay)
        job.send_signal(signal.SIGKILL)
        job.communicate()
    subprocess.run([sys.executable, script, levels[1], "back"], check=True, capture_output=True)
    expected = sums(levels[0])
    found = {name: crc for name, crc in sums(levels[1]).items() if not half_written(name)}
    assert found == expected and len(expected) > 9


def half_written(name):
    """Files that a killed job had begun; `publish` removes them."""
    return name.rsplit("/", 1)[-1].startswith(".") and not name.endswith((".zarray", ".zattrs"))
