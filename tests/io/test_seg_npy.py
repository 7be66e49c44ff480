"""The peer's file: what its GUI reads, and pickles that are refused."""

import pathlib
import pickle

import numpy as np
import pytest

from cellseg_pipe.io.seg_npy import read_seg_npy, write_seg_npy
from cellseg_pipe.kernels import flows_from_labels

LABELS = np.zeros((30, 40), np.uint32)
LABELS[3:12, 5:16] = 3
LABELS[15:26, 20:36] = 7


def written(path, labels):
    flow = flows_from_labels(labels)
    logit = np.where(labels > 0, 4, -4).astype(np.float32)
    write_seg_npy(path, labels=labels, flow=flow, logit=logit, image_path="d/a.tif", diameter_px=12)
    return flow, logit


@pytest.mark.parametrize("shape", [(30, 40), (4, 30, 40)])
def test_what_the_gui_reads(tmp_path, shape):
    labels = np.broadcast_to(LABELS, shape).copy()
    flow, logit = written(tmp_path / "a_seg.npy", labels)
    found = np.load(tmp_path / "a_seg.npy", allow_pickle=True).item()
    np.testing.assert_array_equal(found["masks"], np.searchsorted([0, 3, 7], labels))  # 1, 2
    assert found["masks"].dtype == np.uint16 and found["filename"] == "d/a.tif"
    outline = found["outlines"] > 0
    assert (found["outlines"][outline] == found["masks"][outline]).all()
    assert outline[..., 3, 5:16].all() and not outline[..., 4:11, 6:15].any()
    colours, logits, along_z, ends, raw = found["flows"]
    planes = (1, *shape)[-3:]  # the GUI takes one plane of each, of an image the only one
    assert colours.shape == (*planes, 3) and logits.shape == along_z.shape == planes
    assert {colours.dtype, logits.dtype, along_z.dtype} == {np.dtype(np.uint8)} and ends == []
    np.testing.assert_array_equal(raw, np.concatenate([5 * flow, logit[None]]))
    assert logits.max() == 212 and logits.min() == 42  # -6 to 6 on 0 to 255
    assert found["ismanual"].shape == (2,) and found["colors"].shape == (2, 3)
    assert found["diameter"] == found["est_diam"] == 12 and found["zdraw"] == [None, None]


def test_ours_comes_back(tmp_path):
    written(tmp_path / "a_seg.npy", LABELS)
    found = read_seg_npy(tmp_path / "a_seg.npy")
    usual = np.load(tmp_path / "a_seg.npy", allow_pickle=True).item()
    assert found.keys() == usual.keys()
    np.testing.assert_array_equal(found["masks"], usual["masks"])
    np.testing.assert_array_equal(found["flows"][4], usual["flows"][4])


def header(path, content, protocol):
    """Write a file as numpy does, but with the pickle given."""
    np.save(path, np.array({}, object), allow_pickle=True)
    data = path.read_bytes()
    size = int.from_bytes(data[8:10], "little") + 10
    pickled = pickle.dumps(np.array(content, object), protocol)
    path.write_bytes(data[:size] + pickled.replace(b"numpy._core.", b"numpy.core."))


def test_files_of_numpy_1(tmp_path):
    content = {"masks": np.eye(3, dtype=np.uint16), "diameter": np.float64(9.5), "ids": {1, 2}}
    header(tmp_path / "a_seg.npy", content, protocol=2)
    found = read_seg_npy(tmp_path / "a_seg.npy")  # warnings are errors here
    np.testing.assert_array_equal(found["masks"], np.eye(3))
    assert found["diameter"] == 9.5 and found["ids"] == {1, 2}


class Calls:
    def __init__(self, function, *arguments):
        self.told = function, arguments

    def __reduce__(self):
        return self.told


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (Calls(eval, "1 + 1"), "builtins.eval"),
        (Calls(getattr, "a", "upper"), "builtins.getattr"),
        (Calls(pathlib.os.system, "true"), "system"),
        (Calls(np.load, "x.npy"), "numpy.load"),
        (pathlib.PurePosixPath("a.tif"), "pathlib"),
    ],
)
def test_what_is_no_plain_data_is_refused_by_name(tmp_path, content, named):
    path = tmp_path / "a_seg.npy"
    np.save(path, {"masks": content}, allow_pickle=True)
    with pytest.raises(ValueError, match=f"it names .*{named}.*, which is no plain data"):
        read_seg_npy(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read"),
        (b"PK\x03\x04 something else", "cannot be read"),
        ("cut", "truncated"),
        ("numbers", r"holds numbers of shape \(3,\)"),
        ("no masks", "dict with masks"),
    ],
)
def test_damaged_files_are_said_in_one_line(tmp_path, content, message):
    path = tmp_path / "a_seg.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "cut":
        written(path, LABELS)
        path.write_bytes(path.read_bytes()[:3000])
    elif content == "numbers":
        np.save(path, np.ones(3))
    else:
        np.save(path, {"flows": []}, allow_pickle=True)
    with pytest.raises(ValueError, match=message) as caught:
        read_seg_npy(path)
    assert "\n" not in str(caught.value)
