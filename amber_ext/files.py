"""Files that are written whole or not at all, and a look beforehand at whether they can be written."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def check_file(argument: str, path: str | Path) -> None:
    """Raises ValueError when no file of this name can be written; ``argument`` is what the caller calls it."""
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{argument}: {str(path)!r} is a folder; it must name a file")
    if path.exists() and not path.is_file():
        return  # a device or a pipe is written to as it is
    folder = path.resolve().parent
    if not folder.is_dir():
        raise ValueError(f"{argument}: {str(path)!r} cannot be written; {str(folder)!r} is not a folder")
    try_writing(argument, path, folder)


def check_folder(argument: str, path: str | Path) -> None:
    """Raises ValueError when no files can be written into a folder of this name, which need not be there yet."""
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise ValueError(f"{argument}: {str(path)!r} is a file; it must name a folder")
    try_writing(argument, path, nearest_folder(path.resolve()))


def nearest_folder(folder: Path) -> Path:
    """The folder itself, or the first one above it that is there."""
    return next(parent for parent in (folder, *folder.parents) if parent.exists())


def try_writing(argument: str, path: str | Path, folder: Path) -> None:
    """Raises ValueError, naming ``path``, when ``folder`` takes no new file."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0")
    except OSError as error:
        raise ValueError(f"{argument}: {str(path)!r} cannot be written: {error.strerror}") from None


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A path to write to; what is there takes the place of ``path`` when the block ends without an error."""
    target = Path(path).resolve()
    if target.exists() and not target.is_file():
        yield target
        return
    part = target.with_name(f".{secrets.token_hex(4)}.part")
    try:
        yield part
        if target.exists():
            shutil.copymode(target, part)
        fsync(part)
        os.replace(part, target)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(part)):
            raise
        # Nobody knows the other name.
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        part.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Writes UTF-8, the whole file or nothing."""
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")


def fsync(path: str | Path) -> None:
    """Waits until the file, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
