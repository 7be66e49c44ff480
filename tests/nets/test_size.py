"""The size regression: the peer's guesses, a fit against least squares, pickles never run."""

import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from cellseg_pipe.nets.size import SizeModel, fit, read_peer

GOLDEN = Path(__file__).parents[1] / "golden" / "checkpoints"
VALUES = {"A": np.ones(3), "smean": np.zeros(3), "diam_mean": 30.0, "ymean": 0.5}


def file_of(value, path, *, protocol=4):
    """Write an npy file by hand, so that any protocol and any pickle fits."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|O", "fortran_order": False, "shape": ()}
    )
    array = np.empty((), object)
    array[()] = value
    path.write_bytes(header.getvalue() + pickle.dumps(array, protocol))
    return path


def test_golden_guesses_are_equal():
    results = np.load(GOLDEN / "results.npz")
    model = read_peer(GOLDEN / "segmentation_size.npy")
    guesses = [model.diameter_px(style) for style in results["size_styles"]]
    np.testing.assert_allclose(guesses, results["size_px"], rtol=1e-6)
    assert guesses[-1] == 5.0


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("number", [float, np.float32, np.float64, np.array])
def test_all_protocols_are_read(tmp_path, protocol, number):
    values = VALUES | {"diam_mean": number(17.0), "A": np.arange(3, dtype=np.float32)}
    model = read_peer(file_of(values, tmp_path / "size.npy", protocol=protocol))
    np.testing.assert_array_equal(model.weights, [0, 1, 2])
    assert (model.diam_mean_px, model.mean_log) == (17.0, 0.5)


def test_names_of_numpy_1_are_read(tmp_path):
    path = file_of(VALUES, tmp_path / "size.npy", protocol=2)
    content = path.read_bytes()
    assert b"numpy._core." in content
    path.write_bytes(content.replace(b"numpy._core.", b"numpy.core."))
    np.testing.assert_array_equal(read_peer(path).weights, np.ones(3))


class Calls:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Calls(os.mkdir, "was_run"), "holds posix.mkdir"),
        ({**VALUES, "A": Calls(os.mkdir, "was_run")}, "holds posix.mkdir"),
        (Calls(eval, "1"), "builtins.eval"),
        (Calls(np.load, "x"), "numpy.load"),
        (Calls(np.zeros, 3), "numpy"),
        (Calls(np.ndarray, (10**12,)), "not callable"),
        ([1, 2], "found list"),
        ({"A": 1}, "smean, diam_mean, ymean missing"),
        ({**VALUES, "smean": np.zeros(4)}, "one length"),
        ({**VALUES, "ymean": "x"}, "could not convert"),
        ({**VALUES, "ymean": float("nan")}, "finite"),
        ({**VALUES, "diam_mean": 0.0}, "above 0"),
    ],
)
def test_anything_else_is_refused_and_not_run(tmp_path, monkeypatch, value, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        read_peer(file_of(value, tmp_path / "size.npy"))
    assert "size.npy" in str(caught.value) and not (tmp_path / "was_run").exists()


def test_cut_and_foreign_files_are_refused(tmp_path):
    content = (GOLDEN / "segmentation_size.npy").read_bytes()
    path = tmp_path / "size.npy"
    for n in (0, 3, 9, 64, 130, 200, len(content) - 1):
        path.write_bytes(content[:n])
        with pytest.raises(ValueError, match="is no size regression"):
            read_peer(path)
    np.save(path, np.ones(3))
    with pytest.raises(ValueError, match="found float64 of shape"):
        read_peer(path)


def test_fit_is_the_penalised_least_squares():
    rng = np.random.default_rng(0)
    styles, log = rng.normal(size=(40, 6)), rng.normal(size=40)
    model = fit(styles, 30 * np.exp(log), diam_mean_px=30)
    centred = np.concatenate([styles - styles.mean(0), np.eye(6)])  # rows that pull to zero
    target = np.concatenate([log - log.mean(), np.zeros(6)])
    expected = np.linalg.lstsq(centred, target, rcond=None)[0]
    np.testing.assert_allclose(model.weights, expected, rtol=1e-9)
    assert model.mean_log == pytest.approx(log.mean())


def test_fit_finds_a_law_again():
    rng = np.random.default_rng(1)
    styles = 30 * rng.normal(size=(200, 4))
    diameters = np.exp(styles @ [0.01, -0.02, 0.005, 0.0] + 3)
    model = fit(styles, diameters, diam_mean_px=17)
    for style, diameter in zip(styles, diameters, strict=True):
        assert model.diameter_px(style) == pytest.approx(max(5, diameter), rel=1e-3)


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="style of 3 numbers"):
        SizeModel(np.ones(3), np.ones(3), 0.0, 30.0).diameter_px(np.ones(4))
    with pytest.raises(ValueError, match="diameters above 0"):
        fit(np.ones((2, 3)), [10, 0])
    with pytest.raises(ValueError, match="one diameter per image"):
        fit(np.ones((2, 3)), [10])
