"""Downloads against a host on the loopback: resume, digests, redirects, and hosts that are not there."""

from __future__ import annotations

import hashlib
import random
import shutil
import zipfile
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

import pytest

from synthesis.engines.gpt_sovits import downloads
from synthesis.engines.gpt_sovits.config import ModelVersion
from synthesis.engines.gpt_sovits.downloads import content_digest, download, unpack_zip
from synthesis.engines.gpt_sovits.errors import (
    DownloadError,
    HostileCheckpointError,
    ModelFileError,
    NetworkUnavailableError,
)
from synthesis.engines.gpt_sovits.published import EXTRACTOR_FILES, TEXT_FILES, VOICE_FILES
from tests.engines.gpt_sovits.file_host import FileHost, serve_files

CONTENT = random.Random(7).randbytes(3_500_000)  # several read blocks


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileHost]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serve_files() as running:
        yield running


def fetch(
    host: FileHost, target: Path, *, path: str = "repo/file.bin", digest: str = ""
) -> list[tuple[int, int | None]]:
    seen: list[tuple[int, int | None]] = []
    download(
        f"{host.url}/{path}", target, digest=digest, on_progress=lambda *step: seen.append(step), pause_seconds=0.001
    )
    return seen


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_a_large_file_comes_through_its_redirect_with_progress(host: FileHost, tmp_path: Path) -> None:
    host.add("repo/file.bin", CONTENT, linked=True)
    seen = fetch(host, tmp_path / "folder" / "file.bin")
    assert (tmp_path / "folder" / "file.bin").read_bytes() == CONTENT
    assert names(tmp_path / "folder") == ["file.bin"]
    assert seen[0] == (0, len(CONTENT))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def test_a_file_that_is_there_is_not_asked_for(host: FileHost, tmp_path: Path) -> None:
    (tmp_path / "file.bin").write_bytes(b"mine")
    fetch(host, tmp_path / "file.bin")
    assert host.requests == []


def test_broken_connections_are_continued_where_they_broke(host: FileHost, tmp_path: Path) -> None:
    host.add("repo/file.bin", CONTENT, linked=True, cut_after=[1_200_000, 900_000], statuses=[503])
    fetch(host, tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    spans = [span for path, span in host.gets if path.startswith("cdn/")]
    assert spans == ["", "", "bytes=1200000-", "bytes=2100000-"]


def test_a_later_run_continues_what_an_earlier_one_left(host: FileHost, tmp_path: Path) -> None:
    host.add("repo/file.bin", CONTENT, linked=True, cut_after=[100_000] * 5)
    with pytest.raises(DownloadError, match=r"broke off 5 times\. Run this again") as caught:
        fetch(host, tmp_path / "file.bin")
    assert (caught.value.code, caught.value.retryable) == ("download_failed", True)
    (part,) = tmp_path.iterdir()
    assert part.suffix == ".part"
    assert part.read_bytes() == CONTENT[:500_000]
    host.requests.clear()
    fetch(host, tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert host.gets[-1] == ("cdn/repo/file.bin", "bytes=500000-")


def test_a_file_that_changed_between_two_runs_is_not_joined_to_the_old_half(host: FileHost, tmp_path: Path) -> None:
    host.add("repo/file.bin", CONTENT, linked=True, cut_after=[100_000] * 5)
    with pytest.raises(DownloadError):
        fetch(host, tmp_path / "file.bin")
    other = CONTENT[::-1]
    host.add("repo/file.bin", other, linked=True)
    fetch(host, tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == other


def test_a_host_without_ranges_sends_all_of_it_again(host: FileHost, tmp_path: Path) -> None:
    host.add("repo/file.bin", CONTENT, linked=True, cut_after=[100_000], ranges=False)
    fetch(host, tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert [path for path, _ in host.gets].count("cdn/repo/file.bin") == 2


def test_content_other_than_announced_is_deleted(host: FileHost, tmp_path: Path) -> None:
    host.add("repo/file.bin", CONTENT, linked=True, digest=hashlib.sha256(b"other").hexdigest())
    with pytest.raises(DownloadError, match="is not what was announced"):
        fetch(host, tmp_path / "file.bin")
    assert names(tmp_path) == []


def git_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def test_small_files_are_told_by_the_id_that_git_gives_them(host: FileHost, tmp_path: Path) -> None:
    host.add("repo/config.json", b"{}", digest=git_id(b"{}"))
    fetch(host, tmp_path / "config.json", path="repo/config.json")
    host.add("repo/config.json", b"[]", digest=git_id(b"{}"))
    with pytest.raises(DownloadError, match="is not what was announced"):
        fetch(host, tmp_path / "other.json", path="repo/config.json")
    (tmp_path / "empty").touch()
    assert content_digest(tmp_path / "empty", "git") == "git:e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"


def test_a_pinned_digest_counts_whatever_the_host_says(host: FileHost, tmp_path: Path) -> None:
    host.add("repo/file.rep", b"A  EY1\n")
    fetch(host, tmp_path / "right.rep", path="repo/file.rep", digest=f"git:{git_id(b'A  EY1' + bytes([10]))}")
    with pytest.raises(DownloadError, match="is not what was announced"):
        fetch(host, tmp_path / "wrong.rep", path="repo/file.rep", digest=f"git:{git_id(b'other')}")
    assert names(tmp_path) == ["right.rep"]


def test_an_ordinary_hosts_tag_is_no_digest(host: FileHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    described = downloads._described
    monkeypatch.setattr(downloads, "_described", lambda headers: described(without_commit(headers)))
    host.add("repo/file.bin", b"content", digest="0" * 64)
    fetch(host, tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == b"content"


def without_commit(headers: Message[str, str]) -> Message[str, str]:
    del headers["X-Repo-Commit"]
    return headers


def test_what_is_not_there_is_said_at_once(host: FileHost, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="answers 404"):
        fetch(host, tmp_path / "file.bin")
    assert len(host.requests) == 1
    host.add("repo/file.bin", CONTENT, linked=True, statuses=[403])
    with pytest.raises(DownloadError, match="answers 403"):
        fetch(host, tmp_path / "file.bin")


def test_redirects_without_end_and_away_from_https_are_refused(host: FileHost, tmp_path: Path) -> None:
    host.add("repo/file.bin", b"", redirect_to="/repo/file.bin")
    with pytest.raises(DownloadError, match="redirects without end"):
        fetch(host, tmp_path / "file.bin")
    with pytest.raises(DownloadError, match="away from https"):
        downloads._redirected("https://host.example/a", "http://host.example/a")
    assert downloads._redirected("https://host.example/a/b", "/c") == "https://host.example/c"
    host.add("repo/file.bin", b"", redirect_to="file:///etc/passwd")
    with pytest.raises(DownloadError):
        fetch(host, tmp_path / "file.bin")
    assert names(tmp_path) == []


def test_a_host_that_cannot_be_reached_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1,nowhere.invalid")
    for url, name in (("http://127.0.0.1:9/x", "127.0.0.1:9"), ("https://nowhere.invalid/x", "nowhere.invalid")):
        with pytest.raises(NetworkUnavailableError, match=f"{name} cannot be reached") as caught:
            download(url, tmp_path / "file.bin")
        assert caught.value.code == "network_unavailable"


def test_a_disk_that_is_too_small_is_said_before_anything_is_fetched(
    host: FileHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.add("repo/file.bin", CONTENT, linked=True)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1 << 20))
    with pytest.raises(DownloadError, match="has 1 MB left, and 3 MB more are needed"):
        fetch(host, tmp_path / "file.bin")
    assert host.gets == []


# --- Archives --------------------------------------------------------------------------------------------------------


def archive(path: Path, **entries: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in entries.items():
            opened.writestr(name, content)
    return path


def test_only_the_wanted_files_of_an_archive_are_written_flat(tmp_path: Path) -> None:
    source = archive(
        tmp_path / "G2PW.zip",
        **{"G2PW/net.onnx": b"net", "G2PW/sub/CHARS.txt": b"chars", "G2PW/config.py": b"import os"},
    )
    assert unpack_zip(source, tmp_path / "g2pw", suffixes=(".onnx", ".txt")) == ["CHARS.txt", "net.onnx"]
    assert names(tmp_path / "g2pw") == ["CHARS.txt", "net.onnx"]
    assert (tmp_path / "g2pw" / "net.onnx").read_bytes() == b"net"


@pytest.mark.parametrize("name", ["../evil.txt", "a/../../evil.txt", "/etc/evil.txt", "C:\\evil.txt", "..\\evil.txt"])
def test_paths_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    source = archive(tmp_path / "a.zip", **{"fine.txt": b"x", name: b"evil"})
    with pytest.raises(HostileCheckpointError, match="holds the path"):
        unpack_zip(source, tmp_path / "out" / "folder", suffixes=(".txt",))
    assert names(tmp_path) == ["a.zip"]


def test_archives_that_are_too_large_ambiguous_empty_or_damaged_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    twice = archive(tmp_path / "twice.zip", **{"a/x.txt": b"1", "b/x.txt": b"2"})
    with pytest.raises(HostileCheckpointError, match="two files of one name"):
        unpack_zip(twice, tmp_path / "out", suffixes=(".txt",))
    with pytest.raises(ModelFileError, match="none of the files"):
        unpack_zip(twice, tmp_path / "out", suffixes=(".onnx",))
    whole = archive(tmp_path / "whole.zip", **{"x.txt": bytes(100_000)})
    (tmp_path / "cut.zip").write_bytes(whole.read_bytes()[:-30])
    (tmp_path / "bad.zip").write_bytes(whole.read_bytes().replace(b"\xed", b"\xee", 1))
    for name in ("cut.zip", "bad.zip"):
        with pytest.raises(ModelFileError, match="truncated or damaged"):
            unpack_zip(tmp_path / name, tmp_path / "out", suffixes=(".txt",))
    assert names(tmp_path / "out") == []
    monkeypatch.setattr(downloads, "_MAX_UNPACKED_BYTES", 99_999)
    with pytest.raises(HostileCheckpointError, match="unpacks to more"):
        unpack_zip(whole, tmp_path / "out", suffixes=(".txt",))


# --- The table -------------------------------------------------------------------------------------------------------


def test_every_published_file_has_one_place_and_one_target() -> None:
    files = {file for group in [*VOICE_FILES.values(), *EXTRACTOR_FILES.values(), TEXT_FILES] for file in group}
    assert len({file.url() for file in files}) == len({file.target for file in files}) == len(files)
    assert set(VOICE_FILES) == set(ModelVersion)
    (ar, _) = VOICE_FILES[ModelVersion.V2]
    assert ar.url("http://mirror/") == (
        "http://mirror/lj1995/GPT-SoVITS/resolve/main/gsv-v2final-pretrained/"
        "s1bert25hz-5kh-longer-epoch%3D12-step%3D369668.ckpt"
    )
    assert all(file.url("http://mirror").startswith("https://") for file in TEXT_FILES if file.name != "G2PWModel.zip")
