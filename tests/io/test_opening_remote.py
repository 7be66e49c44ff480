"""Stores on servers: read over HTTP from a real one, S3 asked anonymously, clear words offline."""

import functools
import http.server
import json
import threading

import numpy as np
import pytest

from cellseg_pipe.geometry import Box
from cellseg_pipe.io import _remote
from cellseg_pipe.io.ngff import ImageMeta, create_image
from cellseg_pipe.io.opening import open_image

rng = np.random.default_rng(0)
PIXELS = rng.integers(0, 99, (2, 100, 120), dtype=np.uint16)
NOWHERE = "http://127.0.0.1:9"  # the port of a service that throws all away, and that nobody runs


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def served(tmp_path):
    """Yield a folder and its address."""
    handler = functools.partial(Quiet, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield tmp_path, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_over_http(served, version):
    folder, address = served
    array = {"shape": PIXELS.shape, "dtype": "uint16", "chunks": (1, 32, 32)}
    meta = ImageMeta("cyx", (0.5, 0.25), ("a", "b"))
    path = folder / "a.ome.zarr"
    create_image(path, meta, array=array, value_range=(0, 99), version=version)[...] = PIXELS
    image = open_image(f"{address}/a.ome.zarr")
    assert (image.shape, image.spacing_um) == ((100, 120), (0.5, 0.25))
    assert image.channel_names == ("a", "b") and image.in_place
    assert image.identity["path"] == f"{address}/a.ome.zarr"
    box = Box((10, 20), (90, 70))
    np.testing.assert_array_equal(image.read(box), PIXELS[:, 10:90, 20:70])
    with pytest.raises(ValueError, match="is a place without one"):
        open_image(f"{address}/other.zarr")


def test_a_damaged_chunk_over_http(served):
    folder, address = served
    array = {"shape": PIXELS.shape, "dtype": "uint16", "chunks": (1, 32, 32)}
    level = create_image(
        folder / "a.zarr", ImageMeta("cyx", (1, 1)), array=array, value_range=(0, 99)
    )
    level[...] = PIXELS
    (folder / "a.zarr" / "0" / "1" / "2" / "0").write_bytes(b"nothing")
    image = open_image(f"{address}/a.zarr")
    with pytest.raises(ValueError, match=f"{address}/a.zarr cannot.*chunk 1/2/0") as caught:
        image.read(Box.of(image.shape))
    assert "\n" not in str(caught.value)


def test_a_server_that_does_not_answer():
    with pytest.raises(OSError, match=f"{NOWHERE}/a.zarr cannot be reached.*Check the address"):
        open_image(f"{NOWHERE}/a.zarr")


def test_other_files_are_not_read_from_servers():
    with pytest.raises(ValueError, match="only OME-Zarr is read from servers. Download it"):
        open_image(f"{NOWHERE}/a.ome.tif")


@pytest.mark.parametrize("keys", [False, True])
def test_s3_is_asked_anonymously_where_there_are_no_keys(monkeypatch, keys):
    for name in (_remote.OPTIONS, *_remote.SECRETS):
        monkeypatch.delenv(name, raising=False)
    if keys:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
    store = _remote.RemoteStore("s3://bucket/a.zarr")
    files, root = store._files
    assert (type(files).__name__, files.anon, root) == ("S3FileSystem", not keys, "bucket/a.zarr")


def test_s3_without_a_network(monkeypatch):
    options = {
        "anon": True,
        "endpoint_url": NOWHERE,
        "config_kwargs": {"connect_timeout": 1, "retries": {"max_attempts": 1}},
    }
    monkeypatch.setenv(_remote.OPTIONS, json.dumps(options))
    with pytest.raises(OSError, match="s3://bucket/a.zarr cannot be reached") as caught:
        open_image("s3://bucket/a.zarr")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["no json", "[1]"])
def test_options_that_are_no_json_are_refused(monkeypatch, text):
    monkeypatch.setenv(_remote.OPTIONS, text)
    with pytest.raises(ValueError, match="needs to be a JSON object"):
        open_image("s3://bucket/a.zarr")


def test_unknown_kinds_of_servers():
    with pytest.raises(OSError, match="gopher://x/a.zarr cannot be reached: Protocol not known"):
        open_image("gopher://x/a.zarr")
