"""A disk whose power can be cut: it knows what fsync has made safe, and forgets the rest."""

import os
import random

import pytest

from cellseg_pipe.ledger import _crash

KINDS = ("open", "write", "pwrite", "fsync", "link", "replace", "unlink")


class Died(BaseException):
    """The process is gone; nothing it does from here on reaches the disk."""


class Disk:
    """Stands between the ledger and the files, in this process.

    Sizes and names are safe after fsync of the file and of its folder. After death every call dies
    again, so that no clean-up of the code under test can help it.
    """

    def __init__(self):
        self.patch = pytest.MonkeyPatch()
        self.real = {kind: getattr(os, kind) for kind in KINDS}
        self.off = False
        self.sizes = {}  # by inode: bytes that are safe
        self.names = {}  # by inode of the folder: names that are safe
        for kind in KINDS:
            self.patch.setattr(os, kind, getattr(self, kind))
        self.patch.setattr(os, "kill", self.kill)

    def arm(self, site, nth):
        self.off = False
        self.patch.setattr(_crash, "_NAME", site)
        self.patch.setattr(_crash, "_NTH", str(nth))
        self.patch.setattr(_crash, "_passings", iter(range(1, 10**9)))

    def close(self):
        self.patch.undo()

    def kill(self, pid, signal):
        self.off = True
        raise Died

    def _check(self):
        if self.off:
            raise Died

    def open(self, *args, **kwargs):
        self._check()
        return self.real["open"](*args, **kwargs)

    def write(self, *args):
        self._check()
        return self.real["write"](*args)

    def pwrite(self, *args):
        self._check()
        return self.real["pwrite"](*args)

    def link(self, *args):
        self._check()
        return self.real["link"](*args)

    def replace(self, *args):
        self._check()
        return self.real["replace"](*args)

    def unlink(self, *args, **kwargs):
        self._check()
        return self.real["unlink"](*args, **kwargs)

    def fsync(self, handle):
        self._check()
        found = os.fstat(handle)
        if os.path.isdir(f"/dev/fd/{handle}"):
            self.names[found.st_ino] = set(os.listdir(handle))
        else:
            self.sizes[found.st_ino] = found.st_size

    def cut(self, root, seed):
        """Lose any part of what is not safe: names, ends of files; some ends come back as zeros."""
        chance = random.Random(seed)
        self.off = False
        for folder, _, names in os.walk(root, topdown=False):
            safe_names = self.names.get(os.stat(folder).st_ino, set())
            for name in sorted(names):
                path = os.path.join(folder, name)
                if name not in safe_names and chance.random() < 0.5:
                    self.real["unlink"](path)
                    continue
                self._cut_file(path, chance)

    def _cut_file(self, path, chance):
        found = os.stat(path)
        safe = self.sizes.get(found.st_ino, 0)
        kept = chance.randint(safe, max(safe, found.st_size))
        if kept < found.st_size:
            os.truncate(path, kept)
            if chance.random() < 0.3:  # the size was written, the bytes were not
                os.truncate(path, found.st_size)
        self.sizes[found.st_ino] = os.stat(path).st_size
