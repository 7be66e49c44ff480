"""What each input takes, by name and number, and what it then holds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cellseg_pipe.preprocess import (
    Pick,
    check_finite,
    gather_channels,
    resolve_channels,
    white_of,
)

ZERO, GREY = Pick("zero"), Pick("grey")
NAMES = ("DAPI", "actin", "Actin", "CD3")


def channel(i):
    return Pick("channel", i)


def resolved(channels, n_channels=4, n_inputs=2, names=NAMES, rgb=False):
    names = names[:n_channels] if names else None
    where = {"names": names, "n_channels": n_channels, "n_inputs": n_inputs, "rgb": rgb}
    return resolve_channels(channels, **where)


@pytest.mark.parametrize(
    ("n_channels", "n_inputs", "rgb", "expected"),
    [
        (1, 2, False, (channel(0), ZERO)),
        (2, 2, False, (channel(0), channel(1))),
        (3, 3, True, (channel(0), channel(1), channel(2))),
        (3, 2, True, (GREY, ZERO)),
        (4, 1, True, (GREY,)),
    ],
)
def test_what_nobody_named(n_channels, n_inputs, rgb, expected):
    assert resolved(None, n_channels, n_inputs, rgb=rgb) == expected


@pytest.mark.parametrize(
    ("channels", "expected"),
    [
        (2, (channel(2), ZERO)),
        (np.int64(2), (channel(2), ZERO)),
        ("CD3", (channel(3), ZERO)),
        ("cd3", (channel(3), ZERO)),
        ("Actin", (channel(2), ZERO)),
        ("1", (channel(1), ZERO)),
        ("grey", (GREY, ZERO)),
        (["CD3", "DAPI"], (channel(3), channel(0))),
        (["gray", 0], (GREY, channel(0))),
        ([None, "DAPI"], (ZERO, channel(0))),
        (["DAPI", ""], (channel(0), ZERO)),
    ],
)
def test_what_is_named(channels, expected):
    assert resolved(channels) == expected


def test_the_images_own_names_go_before_our_words():
    assert resolved("1", names=("0", "2", "1", "grey")) == (channel(2), ZERO)
    assert resolved("grey", names=("0", "2", "1", "grey")) == (channel(3), ZERO)
    assert resolved("eosin", 3, rgb=True, names=None) == (Pick("stain", 1), ZERO)


@pytest.mark.parametrize(
    ("channels", "message"),
    [
        ("DAPY", r"named DAPI, actin, Actin, CD3\. Did you mean 'DAPI'"),
        ("gray1", "Did you mean 'grey'"),
        (4, "the image has 0 to 3"),
        (-1, "Count from 0"),
        ("ACTIN", "got 2 of that name: numbers 1, 2"),
        (["DAPI", "CD3", 1], "1 to 2 entries"),
        ([], "1 to 2 entries"),
        ("hematoxylin", "needs a colour image"),
        (None, "model takes 2. Name them"),
    ],
)
def test_what_cannot_be_is_said_clearly(channels, message):
    with pytest.raises(ValueError, match=message):
        resolved(channels)


def test_other_mistakes():
    with pytest.raises(TypeError, match="numbers from 0"):
        resolved([True])
    with pytest.raises(ValueError, match="1 channel or more"):
        resolved(0, n_inputs=0)


@pytest.mark.parametrize("dtype", "? u1 i1 u2 i2 u4 i4 u8 i8 f2 f4 f8 >u2 >f4".split())
def test_every_type_of_pixel(dtype):
    pixels = (np.arange(24).reshape(3, 2, 4) % 100).astype(dtype)
    found = gather_channels(pixels, (channel(2), ZERO, GREY))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[0], pixels[2].astype(np.float64))
    np.testing.assert_array_equal(found[1], 0)
    np.testing.assert_allclose(found[2], pixels.astype(np.float64).mean(0), rtol=1e-6)


def test_complex_pixels_are_refused():
    with pytest.raises(TypeError, match="complex"):
        gather_channels(np.zeros((1, 2, 2), complex), (GREY,))
    with pytest.raises(TypeError, match="8 or 16 bits"):
        gather_channels(np.zeros((3, 2, 2), np.int32), (Pick("stain", 0),))


@given(
    hnp.arrays(np.float32, (3, 7, 9), elements=st.floats(0, 1, width=32)),
    st.tuples(*[st.integers(0, 4)] * 2),
)
def test_a_box_has_the_bits_of_the_whole(pixels, start):
    picks = (GREY, *(Pick("stain", i) for i in range(3)), channel(1))
    cut = (slice(None), slice(start[0], start[0] + 3), slice(start[1], start[1] + 5))
    for image in (pixels, (pixels * 255).astype(np.uint8)):
        whole = gather_channels(image, picks)
        assert gather_channels(image[cut], picks).tobytes() == whole[cut].tobytes()


def test_stains_are_unmixed():
    # Light through a known amount of each stain, by Beer and Lambert.
    density = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
    amounts = np.random.default_rng(0).uniform(0, 0.6, (3, 20, 20))
    light = 10 ** -np.tensordot(density, amounts, (0, 0))
    picks = tuple(Pick("stain", i) for i in range(3))
    np.testing.assert_allclose(gather_channels(light, picks), amounts, atol=2e-3)
    eight = np.rint(light * 255).astype(np.uint8)
    np.testing.assert_allclose(gather_channels(eight, picks), amounts, atol=0.05)
    sixteen = np.rint(light * 65535).astype(np.uint16)
    np.testing.assert_allclose(gather_channels(sixteen, picks), amounts, atol=2e-3)
    # As floats they are of the same light, if it is known what white is.
    for image in (eight, sixteen):
        floats = gather_channels(image.astype(np.float32), picks, white=white_of(image.dtype))
        np.testing.assert_allclose(floats, gather_channels(image, picks), atol=2e-6)
    assert (white_of(np.float32), white_of(bool), white_of(np.int32)) == (1.0, 1.0, 0.0)
    with pytest.raises(TypeError, match="8 or 16 bits"):
        gather_channels(light, picks, white=0.0)
    white = np.full((4, 2, 2), 255, np.uint8)  # with alpha
    np.testing.assert_array_equal(gather_channels(white, picks), 0)


def test_bad_pixels_are_counted_and_placed():
    pixels = np.zeros((2, 4, 5), np.float32)
    check_finite(pixels)
    check_finite(np.zeros((1, 2, 2), np.uint16))
    pixels[1, 2, 3], pixels[1, 3, 0] = np.nan, np.inf
    with pytest.raises(
        ValueError, match=r"slide\.tif needs .* got 2 of 40.* channel 1 at \(12, 23\)"
    ):
        check_finite(pixels, name="slide.tif", origin=(10, 20))
    with pytest.raises(ValueError, match=r"channel 0 at \(0, 1\)"):
        check_finite(gather_channels(np.array([[[0.0, 1e300]]]), (channel(0),)))
