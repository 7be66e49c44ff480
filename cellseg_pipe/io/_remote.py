"""Where the files of a Zarr hierarchy lie on a server: read through fsspec."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cellseg_pipe.io._raw import said

__all__ = ["OPTIONS", "SECRETS", "RemoteStore"]

OPTIONS = "CELLSEG_STORAGE_OPTIONS"  # environment: JSON, handed to fsspec
SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE")


@dataclass(frozen=True)
class RemoteStore:
    """A hierarchy that is read through fsspec.

    Parameters
    ----------
    name : str
        Its URL.
    """

    name: str

    @cached_property
    def options(self) -> dict[str, Any]:
        """What fsspec is told: the user's words, else anonymous where there are no keys."""
        if OPTIONS in os.environ:
            try:
                options = json.loads(os.environ[OPTIONS])
            except ValueError:
                options = None
            if not isinstance(options, dict):
                raise ValueError(
                    f'{self.name}: {OPTIONS} needs to be a JSON object as {{"anon": true}}, got'
                    f" {os.environ[OPTIONS]!r}."
                )
            return options
        if self.name.startswith("s3://"):
            return {"anon": not any(name in os.environ for name in SECRETS)}
        return {}

    @cached_property
    def _files(self) -> tuple[Any, str]:
        from fsspec.core import url_to_fs

        options = self.options
        try:
            return url_to_fs(self.name, **options)
        except (ImportError, ValueError, TypeError, OSError) as error:  # some connect at once
            raise self._fault(error) from error

    def get(self, key: str) -> bytes | None:
        """Return the content of a file."""
        files, root = self._files
        try:
            return bytes(files.cat_file(f"{root.rstrip('/')}/{key}"))
        except (FileNotFoundError, PermissionError):  # S3 hides what is missing where none may list
            return None
        except _remote_faults() as error:
            raise self._fault(error) from error

    def children(self, key: str) -> list[str]:
        """Return nothing: web servers do not list their folders."""
        return []

    def kvstore(self, key: str) -> dict[str, Any] | None:
        """Return nothing: fsspec knows more kinds of servers and of keys."""
        return None

    def opened(self) -> Any:
        """Return it as zarr-python opens it."""
        from zarr.storage import FsspecStore

        options = self.options
        try:
            return FsspecStore.from_url(self.name, storage_options=options, read_only=True)
        except (ImportError, ValueError, TypeError, OSError) as error:
            raise self._fault(error) from error

    def stamp(self, key: str) -> dict[str, Any]:
        """Return the tag of a file, where the server gives one."""
        files, root = self._files
        try:
            about = files.info(f"{root.rstrip('/')}/{key}")
        except _remote_faults():
            return {}
        return {"etag": about["ETag"]} if about.get("ETag") else {}

    def _fault(self, error: Exception) -> OSError:
        return OSError(
            f"{self.name} cannot be reached: {said(error)}. Check the address and the network;"
            f" {OPTIONS} holds keys and end points, as JSON."
        )


def _remote_faults() -> tuple[type[Exception], ...]:
    """Return what the clients of servers raise, as far as they are installed."""
    faults: list[type[Exception]] = [OSError, ValueError]
    try:
        from aiohttp import ClientError
    except ImportError:
        pass
    else:
        faults.append(ClientError)
    try:
        from botocore import exceptions as aws
    except ImportError:
        pass
    else:
        faults += [aws.BotoCoreError, aws.ClientError]
    return tuple(faults)
