"""Folders are replaced as a whole, or file by file where they have to stay; reading them changes nothing."""

import contextlib
import errno
import os
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.cases import refused
from ttqlib.storage import folders

FENCE = ("config", "weights")


def write(folder: Path, value: str) -> None:
    with folders.replacing(folder, FENCE) as new:
        for name in (*FENCE, "extra"):
            (new / name).write_text(value)


def read(folder: Path) -> list[str]:
    return [(folder / name).read_text() for name in (*FENCE, "extra")]


def snapshot(folder: Path) -> dict[str, tuple]:
    """All that a look can tell of a folder's entries: modes, contents, times."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.stat()
        content = path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(folder))] = (status.st_mode, content, status.st_mtime_ns, status.st_ino)
    return found


def test_reading_changes_nothing_and_finds_what_was_moved_aside(tmp_path):
    folder = tmp_path / "model"
    write(folder, "new")
    for name in (".model.ttq-old", ".model.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").write_text("kept")
    before = snapshot(tmp_path)
    assert folders.current(folder) == folder and snapshot(tmp_path) == before
    shutil.rmtree(folder)
    assert (folders.current(folder) / "mine").read_text() == "kept" and not folder.exists()
    shutil.rmtree(tmp_path / ".model.ttq-old")
    assert folders.current(folder) == tmp_path / ".model.old"  # as earlier versions called it
    write(folder, "newer")  # a save puts it back first
    assert (folder / "mine").read_text() == "kept" and read(folder) == ["newer"] * 3


def test_a_folder_that_nobody_may_write_to_leaves_nothing_behind():
    """Its owner may switch it, for the parent folder is theirs. Root may write anywhere, so root becomes nobody."""
    with tempfile.TemporaryDirectory() as parent:
        os.chmod(parent, 0o777)
        child = os.fork()
        if not child:
            with contextlib.suppress(BaseException):
                if not os.geteuid():
                    os.setuid(65534)
                folder = Path(parent) / "model"
                write(folder, "new")
                folder.chmod(0o555)
                write(folder, "newer")
                os._exit(0 if os.listdir(parent) == ["model"] and read(folder) == ["newer"] * 3 else 1)
            os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        os.chmod(Path(parent) / "model", 0o755)


def test_a_save_takes_only_its_own_leavings_away(tmp_path):
    folder = tmp_path / "model"
    write(folder, "new")
    (tmp_path / ".model.old").mkdir()  # a user's: nothing says that it is not
    (tmp_path / ".model.ttq-old").mkdir()
    write(folder, "newer")
    assert sorted(os.listdir(tmp_path)) == [".model.old", "model"]


def test_the_working_folder_stays_the_working_folder(tmp_path, monkeypatch):
    write(tmp_path / "model", "old")
    (tmp_path / "model" / "notes").write_text("mine")
    monkeypatch.chdir(tmp_path / "model")
    number = os.stat(".").st_ino
    write(Path("."), "new")
    assert os.stat(".").st_ino == number and sorted(os.listdir(".")) == ["config", "extra", "notes", "weights"]
    assert read(Path(".")) == ["new"] * 3


def test_subfolders_stay(tmp_path):
    write(tmp_path, "old")
    (tmp_path / "checkpoint-1").mkdir()
    (tmp_path / "checkpoint-1" / "state").write_text("mine")
    write(tmp_path, "new")
    assert read(tmp_path) == ["new"] * 3 and (tmp_path / "checkpoint-1" / "state").read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == ["checkpoint-1", "config", "extra", "weights"]


@pytest.mark.parametrize("mode", [0o2775, 0o700, 0o755])
@pytest.mark.parametrize("subfolder", [False, True])
def test_modes_stay_and_new_files_get_the_usual_one(tmp_path, mode, subfolder):
    folder = tmp_path / "model"
    write(folder, "old")
    if subfolder:
        (folder / "inner").mkdir()
    folder.chmod(mode)
    (folder / "config").chmod(0o640)
    (folder / "extra").unlink()
    usual = tmp_path / "usual"
    usual.write_text("")
    write(folder, "new")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir() if path.is_file()}
    assert stat.S_IMODE(folder.stat().st_mode) == mode
    assert modes["config"] == 0o640 and modes["extra"] == stat.S_IMODE(usual.stat().st_mode)


@pytest.mark.skipif(not hasattr(os, "chown") or os.geteuid() != 0, reason="only root may give files to another group")
def test_a_shared_folder_keeps_its_group(tmp_path):
    folder = tmp_path / "model"
    write(folder, "old")
    os.chown(folder, -1, 12345)
    folder.chmod(0o2775)
    write(folder, "new")
    assert folder.stat().st_gid == 12345 and all(path.stat().st_gid == 12345 for path in folder.iterdir())
    assert read(folder) == ["new"] * 3


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EXDEV, errno.EPERM])
def test_where_a_folder_cannot_be_renamed_its_files_are_replaced(tmp_path, monkeypatch, number):
    """EBUSY is what a mount point says, EXDEV a folder of a container's lower layer."""
    folder, rename = tmp_path / "model", os.rename
    write(folder, "old")
    (folder / "notes").write_text("mine")
    inode = folder.stat().st_ino

    def stubborn(source, target):
        if Path(source) == folder or Path(target) == folder:
            raise OSError(number, os.strerror(number))
        rename(source, target)

    monkeypatch.setattr(os, "rename", stubborn)
    monkeypatch.setattr(folders, "_exchanged", lambda one, other: False)
    write(folder, "new")
    assert read(folder) == ["new"] * 3 and (folder / "notes").read_text() == "mine"
    assert folder.stat().st_ino == inode and os.listdir(tmp_path) == ["model"]


def test_a_folder_that_cannot_be_put_back_in_place_is_not_lost(tmp_path, monkeypatch):
    """The second of two renames fails: the first is undone, and files are replaced one by one."""
    folder, rename = tmp_path / "model", os.rename
    write(folder, "old")

    def once(source, target):
        if ".new-" in str(source) and Path(target) == folder:
            raise OSError(errno.EBUSY, "busy")
        rename(source, target)

    monkeypatch.setattr(os, "rename", once)
    monkeypatch.setattr(folders, "_exchanged", lambda one, other: False)
    write(folder, "new")
    assert read(folder) == ["new"] * 3 and os.listdir(tmp_path) == ["model"]


@pytest.fixture
def mounted(tmp_path):
    """A folder that another is mounted on, on which a save before has been."""
    (tmp_path / "disk").mkdir()
    point = tmp_path / "point"
    point.mkdir()
    mount = shutil.which("mount")
    done = mount and subprocess.run([mount, "--bind", tmp_path / "disk", point], capture_output=True).returncode == 0
    if not done:
        pytest.skip("nothing can be mounted here")
    yield point
    subprocess.run(["umount", point], check=True)


def test_a_mount_point_is_written_into(mounted):
    for value in ("old", "new"):
        write(mounted, value)
        assert read(mounted) == [value] * 3 and sorted(os.listdir(mounted)) == ["config", "extra", "weights"]
    assert sorted(os.listdir(mounted.parent)) == ["disk", "point"]


def die_in_step(number: int, folder: Path) -> bool:
    """A process that replaces the files and dies just before that step; whether it came so far."""
    process = os.fork()
    if not process:
        steps, replace = [0], os.replace

        def count(source, target):
            steps[0] += 1
            if steps[0] == number:
                os._exit(9)
            replace(source, target)

        try:
            os.replace = count
            write(folder, "new")
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 9


def test_files_that_are_replaced_one_by_one_never_make_a_mix_that_does_not_show(tmp_path):
    folder, found = tmp_path / "model", []
    for number in range(1, 9):
        write(folder, "old")
        (folder / "inner").mkdir(exist_ok=True)
        died = die_in_step(number, folder)
        config, weights, extra = read(folder)
        assert config != weights or config == weights == extra  # else nobody would be warned
        found.append((config, weights))
        write(folder, "newer")
        assert read(folder) == ["newer"] * 3 and sorted(os.listdir(folder)) == ["config", "extra", "inner", "weights"]
        if not died:
            break
    assert found == [("old", "old"), ("new", "old"), ("new", "old"), ("new", "new")]


def test_an_error_leaves_nothing_behind(tmp_path):
    write(tmp_path / "model", "old")
    before = snapshot(tmp_path)
    with pytest.raises(RuntimeError), folders.replacing(tmp_path / "model"):
        raise RuntimeError
    assert snapshot(tmp_path) == before
    (tmp_path / "file").write_text("")
    with refused(NotADirectoryError, "file is a file"), folders.replacing(tmp_path / "file"):
        pass
