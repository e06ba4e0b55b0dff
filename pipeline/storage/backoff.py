"""Trying again: which errors may pass, how long to wait between tries, how long one try may take.

Every request to a store is tried here and nowhere else: the clients' own retries are off (`storage.options`), because
two layers of them would multiply.
"""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable
from typing import TypeVar

from pipeline.errors import RefusedError, StorageError
from schemas import secrets

T = TypeVar("T")

ANSWERS = (FileNotFoundError, IsADirectoryError, NotADirectoryError, FileExistsError, ValueError)
"""Not failures of the store: the file is not there, or there already; a path outside the root; a damaged file."""

FINAL_ERRORS = (*ANSWERS, PermissionError)
"""Asking again would not change these."""

FINAL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENAMETOOLONG})

STORE_ERRORS = (StorageError, RefusedError, OSError, ValueError, ImportError)
"""All that a Store raises: it failed, it is out of reach of this installation, or it gives one of the ANSWERS.

What its libraries raise besides is a StorageError by then; a TypeError or KeyError is a bug and passes.
"""

LIBRARIES = {
    *("adlfs", "aiobotocore", "aiohttp", "asyncio", "azure", "botocore", "concurrent", "fsspec", "gcsfs", "google"),
    *("http", "httpx", "huggingface_hub", "paramiko", "requests", "s3fs", "urllib3"),
}
"""Packages whose exceptions say that a store failed: by name, since none is imported where its store is not used."""

FINAL_NAMES = frozenset({"NoCredentialsError", "PartialCredentialsError", "ParamValidationError"})
"""Of botocore, which is not imported where no S3 is used."""

FIRST_WAIT_S, LONGEST_WAIT_S = 0.4, 20.0
SLOWEST_BYTES_PER_S = 1 << 20
"""A body may take its bytes divided by this, on top of the timeout; slower is as bad as no answer."""


def retried(action: Callable[[], T], tries: int, sleep: Callable[[float], None] = time.sleep) -> T:
    """Run `action`, again after each error that may pass, up to `tries` times; exponential backoff, full jitter."""
    for attempt in range(tries):
        try:
            return action()
        except Exception as error:
            if attempt + 1 == tries or is_final(error):
                raise
            sleep(random.uniform(0, min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**attempt)))  # noqa: S311 - jitter, no secret
    raise ValueError(f"tries must be at least 1, not {tries}")


def is_final(error: Exception) -> bool:
    """Whether another try would meet the same error."""
    number = error.errno if isinstance(error, OSError) else None
    known = isinstance(error, FINAL_ERRORS) or number in FINAL_ERRNOS or type(error).__name__ in FINAL_NAMES
    return known or not is_failure(error)


def is_failure(error: Exception) -> bool:
    """Whether an error says that a store failed; else it is a bug, which must not be taken for that."""
    packages = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    return isinstance(error, OSError | EOFError) or not packages.isdisjoint(LIBRARIES)


def deadline_s(timeout_s: float, body_bytes: int) -> float:
    """How long one try may take that moves a body of so many bytes."""
    return timeout_s + body_bytes / SLOWEST_BYTES_PER_S


def brief(error: BaseException) -> str:
    """One line for a user; botocore and aiohttp say the rest of it in a page."""
    text = secrets.redacted(" ".join(str(error).split())) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."
