"""Storage: atomic writes on a disk and in a real object store, and errors."""

from __future__ import annotations

import errno
import subprocess
from pathlib import Path

import fsspec
import pytest
from conftest import KEY, S3

from run import TrainingError
from storage import Storage


def test_an_object_store_is_read_and_written_like_a_folder(s3: S3, tmp_path: Path) -> None:
    storage = Storage({})
    large = tmp_path / "large"
    large.write_bytes(bytes(range(256)) * (20 << 10))
    storage.write("s3://bucket/a/small", b"one")
    storage.write("s3://bucket/a/small", b"two")
    storage.upload(large, "s3://bucket/a/large")
    assert storage.read("s3://bucket/a/small") == b"two"
    assert storage.sizes("s3://bucket/a") == {"large": large.stat().st_size, "small": 3}
    assert (s3.root / "bucket/a/large").read_bytes() == large.read_bytes()
    storage.download("s3://bucket/a/large", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == large.read_bytes()
    storage.delete(["s3://bucket/a/small", "s3://bucket/a/nothing"])
    assert not storage.exists("s3://bucket/a/small")
    assert storage.sizes("s3://bucket/none") == {}
    with storage.open("s3://bucket/a/large") as file:
        file.seek(258)
        assert file.read(2) == b"\x02\x03"


def test_without_rights_the_credentials_are_named(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    for act in (Storage({}).read, lambda uri: Storage({}).write(uri, b"x")):
        with pytest.raises(
            TrainingError, match=r"permission denied: .*check the job's credentials"
        ):
            act("s3://bucket/x")
    assert KEY


def test_without_a_bucket_it_is_named(s3: S3) -> None:
    with pytest.raises(TrainingError, match=r"cannot write s3://none/x: .*create the bucket"):
        Storage({}).write("s3://none/x", b"x")
    assert s3


def test_an_upload_outlives_a_passing_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, calls = Storage({}), []

    def put(_system: object, _file: str, path: str) -> None:
        calls.append(path)
        if len(calls) < 3:
            raise ConnectionResetError("the store is restarting")

    memory = fsspec.get_filesystem_class("memory")
    monkeypatch.setattr(memory, "put_file", put)
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)
    (tmp_path / "x").write_bytes(b"x")
    storage.upload(tmp_path / "x", "memory://x")
    assert len(calls) == 3


@pytest.mark.parametrize("error", [PermissionError("no"), OSError(errno.ENOSPC, "full")])
def test_what_lasts_is_not_tried_again(error: OSError, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def pipe(_system: object, path: str, _data: bytes) -> None:
        calls.append(path)
        raise error

    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "pipe_file", pipe)
    with pytest.raises(TrainingError):
        Storage({}).write("memory://x", b"x")
    assert len(calls) == 1


def test_a_full_disk_is_reported_and_leaves_nothing(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], check=True)
    try:
        with pytest.raises(TrainingError, match=r"no space left to write .*save_total_limit"):
            Storage({}).write(f"file://{disk}/x", b"x" * (1 << 20))
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_killed_write_is_no_file(tmp_path: Path) -> None:
    (tmp_path / ".unfinished-abc").write_bytes(b"half")
    assert Storage({}).sizes(f"file://{tmp_path}") == {}


def test_a_scheme_that_the_image_lacks_is_reported() -> None:
    with pytest.raises(TrainingError, match="this image does not support what://"):
        Storage({}).read("what://bucket/x")


@pytest.mark.parametrize("scheme", ["s3", "gs", "abfss", "hf", "file"])
def test_every_scheme_of_the_specification_has_its_package(scheme: str) -> None:
    assert fsspec.get_filesystem_class(scheme)
