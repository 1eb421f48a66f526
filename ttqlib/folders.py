"""Folders that are replaced as a whole: whoever looks, and whenever a process dies, sees the old one or the new one."""

import ctypes
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of Linux' renameat2


@contextmanager
def replacing(folder: str | os.PathLike) -> Iterator[Path]:
    """An empty folder to write into, which takes the place of `folder` where the block ends without an error.

    It is written beside `folder`, forced to disk and switched in by one rename. Other files that lie in `folder`, such
    as a tokenizer's, come along. Where the system cannot exchange two folders in one step (it can on Linux), there are
    two renames, and `recover` puts right what was interrupted between them. A process that is killed may leave its
    unfinished folder, `.NAME.new-…`, behind.

    Raises:
        NotADirectoryError: `folder` is a file.
        ValueError: it has subfolders, which could not come along.
    """
    folder = Path(os.path.realpath(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    recover(folder)
    _check(folder)
    new = folder.with_name(f".{folder.name}.new-{secrets.token_hex(4)}")
    new.mkdir()
    try:
        yield new
        _carry_over(folder, new)
        for path in [*new.iterdir(), new]:
            _sync(path)
        _switch(new, folder)
        _sync(folder.parent)
    finally:
        shutil.rmtree(new, ignore_errors=True)  # what was replaced, or what was not finished


def recover(folder: str | os.PathLike) -> None:
    """Put back the folder that an interrupted switch by two renames moved aside."""
    folder = Path(os.path.realpath(folder))
    old = _aside(folder)
    if old.is_dir() and not folder.exists():
        os.rename(old, folder)
    elif old.is_dir():
        shutil.rmtree(old)


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _check(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file, not a folder to save into")
    if inner := sorted(path.name for path in folder.iterdir() if path.is_dir()):
        raise ValueError(f"{folder} has subfolders ({', '.join(inner[:3])}): save into a folder of its own")


def _carry_over(folder: Path, new: Path) -> None:
    for path in folder.iterdir() if folder.exists() else ():
        if not (new / path.name).exists():
            shutil.copy2(path, new / path.name)


def _switch(new: Path, folder: Path) -> None:
    if not folder.exists():
        os.rename(new, folder)
    elif not _exchange(new, folder):
        os.rename(folder, _aside(folder))
        os.rename(new, folder)
        shutil.rmtree(_aside(folder))


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders change places in one step, if the system can."""
    if sys.platform != "linux" or not hasattr(libc := ctypes.CDLL(None), "renameat2"):
        return False
    return not libc.renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE)


def _sync(path: Path) -> None:
    if path.is_dir() and sys.platform == "win32":
        return  # folders cannot be opened there
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
