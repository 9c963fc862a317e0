"""A server's temporary files are in one folder, which goes with it; a child's sweep takes nobody else's."""

import os
import tempfile
from pathlib import Path

import pytest

from idiolect_server import scratch


def test_all_temporary_files_are_in_one_folder_that_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(scratch, "LONGEST", 200)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with scratch.scratch() as folder:
        assert folder.parent == tmp_path
        assert Path(tempfile.mkdtemp()).parent == folder
    assert os.environ["TMPDIR"] == tempfile.gettempdir() == str(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_sockets_find_room_where_tmpdir_is_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    assert len(str(tmp_path)) > scratch.LONGEST
    with scratch.scratch() as folder:
        assert folder.parent == Path("/tmp")


def test_a_child_takes_only_what_was_its_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(scratch, "SHARED_MEMORY", tmp_path / "shm")
    names = [f"shm/__KMP_REGISTERED_LIB_{pid}_0" for pid in (7, 77, os.getpid())]
    for name in [*names, "idiolect-7-abc/socket", "idiolect-77-abc/socket", "other/file"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for folder in ("idiolect-77-abc", "other", "idiolect-7-abc"):
        monkeypatch.setenv("TMPDIR", str(tmp_path / folder))
        scratch.sweep(7)
    left = sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file())
    assert left == ["idiolect-77-abc/socket", "other/file", "shm/__KMP_REGISTERED_LIB_77_0"]
