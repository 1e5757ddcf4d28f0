"""The parity command: every committed reference set holds, and what is wrong with a set is a FAIL and exit status 1."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from synthesis.engines.gpt_sovits.parity import __main__ as parity

GOLDEN = Path(__file__).parents[1] / "golden" / "open"


def run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, list[list[str]]]:
    """Exit status, and the fields of each line."""
    monkeypatch.setattr(sys, "argv", ["parity", str(folder)])
    status = parity.main()
    return status, [line.split() for line in capsys.readouterr().out.splitlines()]


def copy(name: str, folder: Path) -> None:
    for path in GOLDEN.glob(f"{name}.*"):
        shutil.copy(path, folder)


def test_every_committed_set_holds(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    torch.set_num_threads(1)
    status, lines = run(GOLDEN, monkeypatch, capsys)
    assert [line for line in lines if line[-1] != "ok"] == []
    assert status == 0
    assert {len(line) for line in lines} == {4}
    names = [line[0] for line in lines]
    assert sorted(name for name in names if name.startswith("text_")) == sorted(
        path.stem
        for path in GOLDEN.glob("text_*.json")  # one case each
    )
    assert {name.split(".")[0] for name in names} == {path.stem for path in GOLDEN.glob("*.json")}
    assert all(float(line[1]) <= float(line[2]) for line in lines)


def test_a_wrong_number_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy("sola_post", tmp_path)
    tensors = load_file(tmp_path / "sola_post.safetensors")
    name = next(name for name, tensor in tensors.items() if name.startswith("sola") and "out" in name)
    tensors[name] = tensors[name] + 1
    save_file(tensors, tmp_path / "sola_post.safetensors")
    status, lines = run(tmp_path, monkeypatch, capsys)
    assert status == 1
    assert "FAIL" in {line[-1] for line in lines}
    assert "ok" in {line[-1] for line in lines}


def test_an_unreadable_set_fails_and_the_others_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy("buckets", tmp_path)
    (tmp_path / "ar_broken.json").write_text("{")
    (tmp_path / "sampling.json").write_text(json.dumps({"cases": []}))
    status, lines = run(tmp_path, monkeypatch, capsys)
    assert status == 1
    verdicts = {line[0].split(".")[0]: line[-1] for line in lines}
    assert verdicts == {"ar_broken": "FAIL", "sampling": "FAIL", "buckets": "ok"}


def test_one_wrong_sentence_in_a_small_set_is_allowed_and_two_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    items = json.loads((GOLDEN / "text_ko.json").read_text())["items"]
    for wrong, status in ((1, 0), (2, 1)):
        for item in items[:wrong]:
            item["phones"] = [*item["phones"][:-1], "?"]
        (tmp_path / "text_ko.json").write_text(json.dumps({"items": items}))
        found, [line] = run(tmp_path, monkeypatch, capsys)
        assert (found, line[0], line[-1]) == (status, "text_ko", "FAIL" if status else "ok")


def test_sets_of_versions_it_does_not_have_are_not_covered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy("buckets", tmp_path)
    (tmp_path / "cfm_v3.json").write_text("{}")
    status, lines = run(tmp_path, monkeypatch, capsys)
    assert status == 0
    assert ["cfm_v3", "-", "-", "not-covered"] in lines


@pytest.mark.parametrize("names", [[], ["cfm_v3.json"]])
def test_nothing_to_compare_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], names: list[str]
) -> None:
    for name in names:
        (tmp_path / name).write_text("{}")
    assert run(tmp_path, monkeypatch, capsys)[0] == 1
