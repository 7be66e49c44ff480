"""Files that appear whole, with the mode that the user wants, or a message that helps."""

import errno
import os
import stat

import pytest

from cellseg_pipe.io.files import binary_whole, sync_folder, written_whole
from cellseg_pipe.ledger import write_whole


def test_bytes_and_callables(tmp_path):
    path = tmp_path / "a" / "b" / "file"
    write_whole(path, b"one")
    assert path.read_bytes() == b"one"
    write_whole(path, lambda file: file.write(b"two"))
    assert path.read_bytes() == b"two"
    assert os.listdir(path.parent) == ["file"]


def test_what_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_whole(path, b"one")

    def fail(file):
        file.write(b"half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_whole(path, fail)
    with pytest.raises(ZeroDivisionError), binary_whole(path) as file:
        fail(file)
    assert (path.read_bytes(), os.listdir(tmp_path)) == (b"one", ["file"])


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_modes_follow_the_umask(tmp_path, umask):
    """Also while they are written: no other thread sees a moment without umask."""
    old = os.umask(umask)
    try:
        with written_whole(tmp_path / "text") as file:
            file.write("µ")
            (temporary,) = tmp_path.iterdir()
            assert stat.S_IMODE(temporary.stat().st_mode) == 0o666 & ~umask
        write_whole(tmp_path / "folder" / "file", b"")
        assert os.umask(umask) == umask
    finally:
        os.umask(old)
    assert (tmp_path / "text").read_text("utf-8") == "µ"
    for name in ("text", "folder/file"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o666 & ~umask
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o777 & ~umask


def test_long_names_fit(tmp_path):
    write_whole(tmp_path / ("ü" * 127), b"x")
    assert (tmp_path / ("ü" * 127)).read_bytes() == b"x"


def test_the_file_and_then_its_folder_are_synced(tmp_path, monkeypatch):
    synced = []
    real = os.fsync

    def fsync(handle):
        kind = "folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file"
        synced.append((kind, (tmp_path / "file").exists()))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    write_whole(tmp_path / "file", b"x")
    assert synced == [("file", False), ("folder", True)]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_shares_that_cannot_sync_folders_are_taken(tmp_path, monkeypatch, number):
    def fsync(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)
    write_whole(tmp_path / "file", b"x")
    assert (tmp_path / "file").read_bytes() == b"x"


def test_a_folder_that_fails_to_sync_is_told_of(tmp_path, monkeypatch):
    def fsync(handle):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError) as caught:
        sync_folder(tmp_path)
    assert caught.value.errno == errno.EIO


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "the disk is full. Free space"),
        (errno.EDQUOT, "your quota is used up"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "may not write here"),
    ],
)
def test_messages_say_what_to_do(tmp_path, monkeypatch, number, said):
    path = tmp_path / "file"
    write_whole(path, b"old")

    def refuse(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(OSError, match=said) as caught:
        write_whole(path, b"new")
    assert (caught.value.errno, caught.value.filename) == (number, str(path))
    assert "start again: nothing finished is lost" in str(caught.value)
    assert (path.read_bytes(), os.listdir(tmp_path)) == (b"old", ["file"])
