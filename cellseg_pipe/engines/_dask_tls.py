"""Certificates that one cluster is made with: who has not got them can give it no work."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distributed import Security

__all__ = ["credentials"]

DAYS = 90
PROGRAM = "openssl"
MAKE = (
    *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
    *("-days", str(DAYS), "-subj", "/CN=cellseg"),
)


@contextlib.contextmanager
def credentials(folder: Path) -> Iterator[Security]:
    """Make a key that scheduler, workers and client share, for as long as a cluster lives.

    A scheduler runs whatever it is sent, and everybody on the machine or network may send to its
    port: so it listens to those alone who can read the key.

    Parameters
    ----------
    folder : path
        Where it is kept, in a folder that only this user can read; workers on other machines read
        it there.

    Yields
    ------
    Security
        That lets nothing pass without.
    """
    from distributed import Security

    folder.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix="tls-", dir=folder))
    try:
        key, certificate = str(made / "key.pem"), str(made / "certificate.pem")
        _make(key, certificate)
        parts = {f"tls_{role}_key": key for role in ("client", "scheduler", "worker")}
        parts |= {f"tls_{role}_cert": certificate for role in ("client", "scheduler", "worker")}
        yield Security(tls_ca_file=certificate, require_encryption=True, **parts)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _make(key: str, certificate: str) -> None:
    command = [PROGRAM, *MAKE, "-keyout", key, "-out", certificate]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"engine dask needs the program {PROGRAM} to encrypt what its processes say to each"
            " other, and it is not there. Install it (apt-get, dnf or conda install openssl)."
        ) from None
    if done.returncode:
        raise OSError(f"{PROGRAM} made no certificate in {certificate}: {done.stderr.strip()}")
