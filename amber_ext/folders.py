"""A folder takes the place of another, whole or not at all.

In one step where the file system can exchange two names (Linux, on most local ones). Elsewhere it takes two renames; what
a process that was killed between them leaves is put back by `recover_folder`.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from amber_ext.files import check_folder, fsync, nearest_folder, try_writing

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of linux/fcntl.h and linux/fs.h


def check_replaced_folder(argument: str, path: str | Path) -> None:
    """Raises ValueError when `replaced_folder` cannot put a folder in the place of this one."""
    check_folder(argument, path)
    target = Path(path).resolve()
    for obstacle, found in (
        ("a mount point", os.path.ismount(target)),
        ("or holds the working directory", Path.cwd().is_relative_to(target)),
    ):
        if found:
            raise ValueError(
                f"{argument}: {str(path)!r} is {obstacle}, so it cannot be replaced in one step; "
                "name a folder in it"
            )
    try_writing(argument, path, nearest_folder(target.parent))


@contextmanager
def replaced_folder(folder: str | Path, keep: Callable[[str], bool]) -> Iterator[Path]:
    """An empty folder to write into, which takes the place of ``folder`` when the block ends without an error.

    At any moment, also when the process is killed, ``folder`` is what it was or what was written.

    Args:
        folder: is made if it is not there.
        keep: told the name of a file or folder in the old folder, whether it stays; never those written anew.
    """
    target = Path(folder).resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    recover_folder(target)
    _sweep(target)
    with _new_sibling(target) as staging:
        try:
            yield staging
            if target.exists():
                _carry_over(target, staging, keep)
                shutil.copymode(target, staging)
            _fsync_all(staging)
            _put_in_place(staging, target)
        finally:  # what is left under this name: the old folder, or what was not finished
            shutil.rmtree(staging, ignore_errors=True)


def recover_folder(folder: str | Path) -> None:
    """Puts a folder back that a process killed between the two renames of `replaced_folder` left aside."""
    target = Path(folder).resolve()
    aside = _aside(target)
    if target.exists() or not aside.is_dir():
        return
    with _locked(aside):  # held by a process that is between the two now
        if not target.exists() and aside.exists():
            os.rename(aside, target)


def _aside(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")


@contextmanager
def _new_sibling(target: Path) -> Iterator[Path]:
    """A new folder beside ``target``, locked: `_sweep` takes those whose lock is free for a dead process'."""
    while True:
        staging = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
        staging.mkdir()
        with _locked(staging):
            if staging.exists():  # else another process swept it before it was locked
                yield staging
                return


def _sweep(target: Path) -> None:
    """Deletes what killed processes left beside ``target``, which is whole."""
    unfinished = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{8}}\.part")
    left = [path for path in target.parent.iterdir() if unfinished.fullmatch(path.name)]
    if target.exists():
        left.append(_aside(target))
    for path in left:
        with _locked(path, wait=False) as locked:
            if locked:
                shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _locked(folder: Path, wait: bool = True) -> Iterator[bool]:
    """Whether this process holds the folder's lock; it ends with the process. Some file systems have none."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            locked = True
        except OSError:
            locked = False
        yield locked
    finally:
        os.close(descriptor)


def _carry_over(old: Path, new: Path, keep: Callable[[str], bool]) -> None:
    for entry in os.scandir(old):
        if os.path.lexists(new / entry.name) or not keep(entry.name):
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.copytree(entry.path, new / entry.name, symlinks=True, copy_function=_link)
        else:
            _link(entry.path, new / entry.name)


def _link(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # another file system, or one without hard links
        shutil.copy2(source, target, follow_symlinks=False)


def _put_in_place(new: Path, target: Path) -> None:
    if not target.exists():
        os.rename(new, target)
    elif not _exchange(new, target):
        aside = _aside(target)
        with _locked(target):  # so that recover_folder waits
            os.rename(target, aside)
            try:
                os.rename(new, target)
            except BaseException:
                os.rename(aside, target)
                raise
        shutil.rmtree(aside, ignore_errors=True)
    fsync(target.parent)


def _exchange(one: Path, other: Path) -> bool:
    """Swaps two names in one step; False where the system or the file system cannot."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
        return False
    raise OSError(code, os.strerror(code), str(other))


def _fsync_all(folder: Path) -> None:
    for parent, _, names in os.walk(folder):
        for name in names:
            if os.path.isfile(path := os.path.join(parent, name)):
                fsync(path)
        fsync(parent)
