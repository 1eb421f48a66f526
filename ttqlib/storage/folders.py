"""Folders whose files are replaced together: whoever looks, and whenever a process dies, finds the old or the new ones.

A folder is switched in as a whole wherever that can be done. A mount point, a folder of a container's lower layer, the
folder that a process works in, or one with subfolders has to stay where it is: there files are replaced one by one, in
an order that makes a half-done replacement show.
"""

import ctypes
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of Linux' renameat2
DRAFT = ".ttq-draft-"  # how the name of an unfinished folder inside another begins


@contextmanager
def replacing(folder: str | os.PathLike, fence: tuple[str, str] = ("", "")) -> Iterator[Path]:
    """An empty folder to write files into, which take their places in `folder` where the block ends without an error.

    They are written beside `folder`, forced to disk and switched in by one rename. Other files that lie in `folder`,
    such as a tokenizer's, come along. Where the system cannot exchange two folders in one step (it can on Linux), there
    are two renames; `recover` puts right what was interrupted between them, and `current` finds it.

    Where the folder itself has to stay, its files are replaced one by one. `fence` names two of them that show whether
    they belong together, as a file and another that holds its digest: one is replaced first, the other last, so that
    whoever comes in between is warned.

    The folder keeps its mode, group and extended attributes, files keep their modes, and new ones get the user's usual
    mode. A process that is killed may leave its unfinished folder, `.NAME.new-…` or `.ttq-draft-…`, behind.

    Raises:
        NotADirectoryError: `folder` is a file.
    """
    folder = Path(os.path.realpath(folder))
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file, not a folder to save into")
    recover(folder)
    new = _draft(folder)
    try:
        yield new
        names = [path.name for path in new.iterdir()]
        for name in names:
            if (folder / name).exists():
                shutil.copymode(folder / name, new / name)
        if not _switched(new, folder):
            _replace_files(new, folder, sorted(names, key=lambda name: (name != fence[0], name == fence[1], name)))
        _sync(folder.parent)
    finally:
        with suppress(OSError):
            new.chmod(0o700)  # which a folder that was replaced may not have allowed
        shutil.rmtree(new, ignore_errors=True)  # what was replaced, or what was not finished


def recover(folder: str | os.PathLike) -> None:
    """Put back the folder that an interrupted switch by two renames moved aside. For who is about to write."""
    folder = Path(os.path.realpath(folder))
    found = current(folder)
    if found != folder:
        os.rename(found, folder)
    if _aside(folder).is_dir():  # it was interrupted after its second rename
        shutil.rmtree(_aside(folder))


def current(folder: str | os.PathLike) -> Path:
    """Where to read a folder: where it is, or where an interrupted switch has moved it. Nothing is changed."""
    folder = Path(folder)
    if not folder.exists():
        real = Path(os.path.realpath(folder))
        for aside in (_aside(real), real.with_name(f".{real.name}.old")):  # the second is what earlier versions wrote
            if aside.is_dir():
                return aside
    return folder


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.ttq-old")


# ------------------------------------------------------------------------------------------------------------ drafts


def _draft(folder: Path) -> Path:
    """A new folder beside `folder`, or inside it, where it has to stay or nothing can be made beside it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    token = secrets.token_hex(4)
    new = folder.with_name(f".{folder.name}.new-{token}")
    if folder.exists():
        for left in folder.glob(f"{DRAFT}*"):
            shutil.rmtree(left, ignore_errors=True)
        if _has_to_stay(folder):
            new = folder / f"{DRAFT}{token}"
    try:
        new.mkdir()
    except OSError:  # a parent of another user's, or read-only
        if not folder.exists() or new.parent == folder:
            raise
        new = folder / f"{DRAFT}{token}"
        new.mkdir()
    return new


def _has_to_stay(folder: Path) -> bool:
    """Whether an existing folder is one that no other can stand in for."""
    with suppress(FileNotFoundError):  # a process whose own folder is gone works in none
        if os.path.samefile(folder, os.getcwd()):
            return True
    others = hasattr(os, "geteuid") and folder.stat().st_uid != os.geteuid()
    return others or os.path.ismount(folder) or any(path.is_dir() for path in folder.iterdir())


# ------------------------------------------------------------------------------------------------- as a whole, or not


def _switched(new: Path, folder: Path) -> bool:
    """Let `new` take the place of `folder`, if that can be done; else nothing is changed."""
    if new.parent == folder:
        return False
    if not folder.exists():
        _sync_all(new)
        os.rename(new, folder)
        return True
    try:
        for path in folder.iterdir():
            if not (new / path.name).exists():
                shutil.copy2(path, new / path.name, follow_symlinks=False)
        _dress(new, folder)
        _sync_all(new)
        return _exchanged(new, folder) or _renamed_twice(new, folder)
    except OSError:  # mount points, lower layers of containers, groups that the user is not in, …
        return False


def _dress(new: Path, folder: Path) -> None:
    """Give a folder and its files the group, and the folder the mode and attributes, of the one that it replaces."""
    group = folder.stat().st_gid
    for path in (*new.iterdir(), new):
        if path.lstat().st_gid != group and folder.stat().st_mode & stat.S_ISGID:
            os.chown(path, -1, group, follow_symlinks=False)
    shutil.copystat(folder, new)
    os.utime(new)


def _exchanged(one: Path, other: Path) -> bool:
    """Let two folders change places in one step, if the system can."""
    if sys.platform != "linux" or not hasattr(libc := ctypes.CDLL(None), "renameat2"):
        return False
    return not libc.renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE)


def _renamed_twice(new: Path, folder: Path) -> bool:
    os.rename(folder, _aside(folder))
    try:
        os.rename(new, folder)
    except OSError:
        os.rename(_aside(folder), folder)
        raise
    shutil.rmtree(_aside(folder))
    return True


def _replace_files(new: Path, folder: Path, names: Sequence[str]) -> None:
    """Put the files of these names, in this order, from `new` into the places of those in `folder`."""
    draft = new
    if new.parent != folder:  # files change places in one step only within a file system
        draft = folder / f"{DRAFT}{secrets.token_hex(4)}"
        draft.mkdir()
    try:
        for name in names if draft != new else ():
            shutil.move(new / name, draft / name)
        _sync_all(draft)
        for name in names:
            os.replace(draft / name, folder / name)
        _sync(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _sync_all(folder: Path) -> None:
    for path in (*folder.iterdir(), folder):
        if not path.is_symlink():
            _sync(path)


def _sync(path: Path) -> None:
    if path.is_dir() and sys.platform == "win32":
        return  # folders cannot be opened there
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
