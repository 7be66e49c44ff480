"""What is left on the disk and in a quota, and who is refused because of it."""

import os
import stat

import pytest

from cellseg_pipe.stages import room
from cellseg_pipe.stages.room import Room, refuse, room_in

QUOTA = """Disk quotas for user me (uid 1):
     Filesystem  blocks   quota   limit   grace   files   quota   limit   grace
/dev/other 1 2 3 4 5 6
{device} {line}
"""


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Programs of these names that say something; no others are found."""

    def made(**said):
        folder = tmp_path / "bin"
        folder.mkdir()
        for name, (text, status) in said.items():
            (folder / f"{name}.txt").write_text(text)
            (folder / name).write_text(f"#!/bin/sh\n/bin/cat {folder}/{name}.txt\nexit {status}\n")
            (folder / name).chmod(stat.S_IRWXU)
        monkeypatch.setenv("PATH", str(folder))

    return made


def test_what_is_free_is_what_this_user_may_take(tmp_path, programs):
    programs()
    there = os.statvfs(tmp_path)
    found = room_in(tmp_path / "not" / "made" / "yet")
    assert found.folder == tmp_path
    assert found.free_bytes == pytest.approx(there.f_bavail * there.f_frsize, rel=0.1)
    assert found.free_files is None or found.free_files == pytest.approx(there.f_favail, rel=0.1)
    assert (found.quota_bytes, found.quota_files) == (None, None)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("1000 2000 3000 10 0 0", (1000 * 1024, None)),
        ("2500* 2000 3000 6days 10 100 200", (0, 90)),
        ("1000 0 3000 - 150 0 200 -", (2000 * 1024, 50)),
        ("1000 0 0 0 0 0", (None, None)),
        ("none at all", (None, None)),
    ],
)
def test_a_quota_is_read_from_its_program(tmp_path, programs, monkeypatch, line, expected):
    monkeypatch.setattr(room, "_device_of", lambda folder: "server:/home")
    programs(quota=(QUOTA.format(device="server:/home", line=line), 1))
    found = room_in(tmp_path)
    assert (found.quota_bytes, found.quota_files) == expected


def test_lustre_is_asked_first(tmp_path, programs, monkeypatch):
    monkeypatch.setattr(room, "_device_of", lambda folder: "d")
    programs(
        lfs=("/lustre 100 200 300 - 7 10 20 -\n", 0),
        quota=(QUOTA.format(device="d", line="1 2 3 4 5 6"), 0),
    )
    found = room_in(tmp_path)
    assert (found.quota_bytes, found.quota_files) == (100 * 1024, 3)


def test_lustre_breaks_the_line_after_a_long_name(tmp_path, programs):
    programs(lfs=(f"{tmp_path}\n               100  200  300  -  7  10  20  -\n", 0))
    found = room_in(tmp_path)
    assert (found.quota_bytes, found.quota_files) == (100 * 1024, 3)


GROUP = """#!/bin/sh
case "$*" in
    *"-g {gid}"*) echo "/lustre 100 200 160 - 7 10 50 -" ;;
    *) echo "/lustre 100 500 500 - 7 9 9 -" ;;
esac
"""


@pytest.mark.parametrize("inherited", [True, False])
def test_the_group_of_the_folder_has_a_quota_too(tmp_path, programs, inherited):
    """Of bytes the group has less left, of files the user."""
    programs(lfs=("", 0))
    if inherited:
        tmp_path.chmod(tmp_path.stat().st_mode | stat.S_ISGID)
    gid = tmp_path.stat().st_gid if inherited else os.getgid()
    (tmp_path / "bin" / "lfs").write_text(GROUP.format(gid=gid))
    found = room_in(tmp_path)
    assert (found.quota_bytes, found.quota_files) == (60 * 1024, 2)


def test_a_program_that_fails_is_no_quota(tmp_path, programs):
    programs(lfs=("not a Lustre file system\n", 2), quota=("", 1))
    assert room_in(tmp_path).quota_bytes is None


def test_what_is_missing_is_said_with_numbers(tmp_path):
    there = Room(tmp_path, 10**9, 100, quota_bytes=5 * 10**8, quota_files=None)
    assert there.lacks(4 * 10**8, 100) == ""
    said = there.lacks(2 * 10**9, 150)
    assert "the disk has 1.00 GB" in said and "2.00 are needed, 1.00 more" in said
    assert "your quota leaves 0.50 GB" in said and "1.50 more" in said
    assert "the disk has 100 files" in said and "50 more" in said
    with pytest.raises(ValueError, match=r"1\.50 more.*resources\.disk"):
        refuse(said, "strict")
    refuse(said, "relaxed")
    refuse("", "strict")
