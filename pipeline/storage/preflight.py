"""What is asked of stores before any work: is it there, may it be written, what does a small file hold.

A refusal says why, in one line.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from pathlib import Path

from pipeline.errors import RefusedError
from pipeline.storage.atomic import TEMPORARY_PREFIX
from pipeline.storage.backoff import STORE_ERRORS, brief
from pipeline.storage.file_systems import Access
from pipeline.storage.paths import refuse_secrets
from pipeline.storage.store import Store, split_uri

START_TRIES = 6
"""Before any work, a wrong endpoint should be told sooner than by all the tries."""


def check_readable(uri: str, access: Access, what: str) -> None:
    """Raise RefusedError unless `uri` exists and can be listed or read."""
    store = Store(uri, replace(access, tries=START_TRIES))
    try:
        present = store.exists("") or store.has_entries()
    except FileNotFoundError:
        present = False
    except STORE_ERRORS as error:
        raise RefusedError(f"cannot read the {what} {uri}: {brief(error)}") from None
    if not present:
        raise RefusedError(f"the {what} {uri} {'do' if what.endswith('s') else 'does'} not exist")
    if store.is_local and Path(store.full("")).is_dir() and not store.has_entries():
        raise RefusedError(f"the {what} {uri}: the folder is empty")


def check_folder(output: str) -> None:
    """Raise RefusedError where a local output is a file, or would lie below one."""
    path = None if "://" in output else Path(output).absolute()
    found = next((one for one in (path, *path.parents) if one.exists()), None) if path else None
    if found and not found.is_dir():
        raise RefusedError(f"cannot write to the output {output}: {found} is a file; name a folder")


def check_writable(output: Store) -> None:
    """Write and delete a small file; raises RefusedError with the reason when that fails."""
    name = f"{TEMPORARY_PREFIX}probe-{uuid.uuid4().hex}"
    impatient = Store(output.uri, replace(output.access, tries=START_TRIES, timeout_s=5))
    try:
        impatient.put(name, b"")
        impatient.delete(name)
    except STORE_ERRORS as error:
        if output.is_local:
            check_folder(output.full(""))
        raise RefusedError(f"cannot write to the output {output.uri}: {brief(error)}") from None


def read_uri(uri: str, access: Access, max_bytes: int, what: str = "file") -> bytes:
    """The content of one file. Raises RefusedError when it cannot be read, or is larger than `max_bytes`.

    what: what the file is to the user, for the message.
    """
    refuse_secrets(uri)
    try:
        store, name = split_uri(uri, access)
        size = store.size(name)
        data = store.read(name, size) if size <= max_bytes else b""
    except FileNotFoundError:
        raise RefusedError(f"the {what} {uri} does not exist") from None
    except STORE_ERRORS as error:
        raise RefusedError(f"cannot read the {what} {uri}: {brief(error)}") from None
    if max(size, len(data)) > max_bytes:  # not every server says how large a file is
        raise RefusedError(f"the {what} {uri} has {max(size, len(data))} bytes, more than the {max_bytes} allowed")
    return data


def read_text(uri: str, access: Access, max_bytes: int, what: str = "file") -> str:
    """As `read_uri`, decoded from UTF-8."""
    try:
        return read_uri(uri, access, max_bytes, what).decode("utf-8")
    except UnicodeDecodeError as error:
        raise RefusedError(f"the {what} {uri} is not UTF-8: {error}") from None
