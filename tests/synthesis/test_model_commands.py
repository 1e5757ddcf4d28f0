"""`import_model` and `fetch_models`, as an operator runs them."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from django.core.management import CommandError, call_command
from pytest_django import Settings
from safetensors.torch import load_file

from synthesis.engines.gpt_sovits.config import ModelVersion
from synthesis.engines.gpt_sovits.model_folder import choose_model, open_extractor, read_tensors
from synthesis.engines.gpt_sovits.models import list_models
from synthesis.engines.gpt_sovits.published import EXTRACTOR_FILES, HUGGING_FACE, TEXT_FILES, VOICE_FILES
from synthesis.engines.gpt_sovits.text.language_detector import packaged_model as small_language_model
from synthesis.engines.gpt_sovits.text.reading import TextData
from synthesis.engines.gpt_sovits.weights import CheckpointKind
from synthesis.management.commands import fetch_models
from tests.engines.gpt_sovits.checkpoints import AR_FILE, VITS_FILE, hubert_folder, retag, roberta_folder, save
from tests.engines.gpt_sovits.file_host import FileHost, serve_files

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def model_path(settings: Settings, tmp_path: Path) -> Path:
    settings.MODEL_PATH = tmp_path / "models"
    return tmp_path / "models"


def run(*arguments: object) -> str:
    output = io.StringIO()
    call_command(*map(str, arguments), stdout=output, stderr=io.StringIO())
    return output.getvalue()


def refusal(*arguments: object) -> str:
    with pytest.raises(CommandError) as caught:
        run(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- import_model ----------------------------------------------------------------------------------------------------


def test_an_import_says_what_each_source_was_and_where_the_model_is(model_path: Path, tmp_path: Path) -> None:
    marked = retag(VITS_FILE, b"01", tmp_path / "marked.pth")
    lines = run("import_model", AR_FILE, marked, "--name", "demo", "--version", "v2").splitlines()
    model = choose_model(model_path)
    assert len(lines) == 3
    assert lines[0].startswith("ar_tiny.ckpt: semantic, 0.7 MB, sha256 ")
    assert lines[1].startswith("marked.pth: vits v2, 8.7 MB, sha256 ")
    assert lines[2] == f"voice model v2 imported: {model_path / 'demo'}, 9.3 MB, digest {model.digest}"
    assert len(read_tensors(model.semantic, verify=True)) == 31


def test_what_cannot_be_imported_is_said_in_one_line(model_path: Path, tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[object, ...]:
            return os.system, (f"touch {tmp_path / 'executed'}",)

    hostile = save({"weight": {"enc_p.text_embedding.weight": torch.zeros(1)}, "config": Attack()}, tmp_path / "x.pth")
    run("import_model", AR_FILE, VITS_FILE, "--name", "demo")
    assert "--replace" in refusal("import_model", AR_FILE, VITS_FILE, "--name", "demo")
    assert "asks for posix.system" in refusal("import_model", AR_FILE, hostile, "--name", "other")
    assert "is a v2 model, not v1" in refusal("import_model", AR_FILE, VITS_FILE, "--name", "other", "--version", "v1")
    assert "'v4' is not supported" in refusal("import_model", AR_FILE, VITS_FILE, "--name", "other", "--version", "v4")
    assert "nowhere.pth: There is no such file." in refusal("import_model", tmp_path / "nowhere.pth", "--name", "other")
    assert "needs a name" in refusal("import_model", AR_FILE, VITS_FILE)
    assert not (tmp_path / "executed").exists()
    assert list_models(model_path) == ["demo"]
    run("import_model", AR_FILE, VITS_FILE, "--name", "demo", "--replace")


def test_a_model_path_that_cannot_be_written_is_named(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings.MODEL_PATH = tmp_path / "file" / "models"
    assert "Not a directory" in refusal("import_model", AR_FILE, VITS_FILE, "--name", "demo")


def test_a_failed_import_ends_with_1(tmp_path: Path) -> None:
    program = (
        "import os, sys; os.environ['DJANGO_SETTINGS_MODULE'] = 'config.settings.test';"
        "from django.core.management import execute_from_command_line as run;"
        f"run(['manage.py', 'import_model', {str(tmp_path / 'nowhere.pth')!r}, '--name', 'demo'])"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.strip() == "CommandError: nowhere.pth: There is no such file."


# --- fetch_models ----------------------------------------------------------------------------------------------------


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FileHost]:
    """Hugging Face with what a v2 model needs, small."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serve_files() as running:
        voice = zip(VOICE_FILES[ModelVersion.V2], (AR_FILE, VITS_FILE), strict=True)
        hubert, roberta = hubert_folder(tmp_path / "hub"), roberta_folder(tmp_path / "rob", tokenizer="tokenizer.json")
        torch.save(load_file(roberta / "model.safetensors"), roberta / "pytorch_model.bin")
        folders = ((CheckpointKind.CONTENT, hubert), (CheckpointKind.BERT, roberta))
        parts = [(file, folder / file.name) for kind, folder in folders for file in EXTRACTOR_FILES[kind]]
        for file, source in [*voice, *parts]:
            running.add(file.path, source.read_bytes(), linked=source.suffix != ".json")
        yield running


def test_fetched_files_are_imported_and_not_fetched_twice(host: FileHost, model_path: Path) -> None:
    host.files[VOICE_FILES[ModelVersion.V2][1].path].cut_after = [4_000_000]
    errors = io.StringIO()
    output = io.StringIO()
    call_command("fetch_models", "--version", "v2", "--mirror", host.url, stdout=output, stderr=errors)
    assert f"voice model v2 imported: {model_path / 'v2'}" in output.getvalue()
    assert choose_model(model_path).version is ModelVersion.V2
    for kind in (CheckpointKind.CONTENT, CheckpointKind.BERT):
        read_tensors(open_extractor(model_path, kind).model, verify=True)
    assert sorted(entry.name for entry in model_path.iterdir()) == ["extractors", "v2"]
    assert f"s2G2333k.pth [{'#' * 30}] 100% 8.7 of 8.7 MB\n" in errors.getvalue()
    asked = len(host.requests)
    assert "Everything is there already" in run("fetch_models", "--version", "v2", "--mirror", host.url)
    assert len(host.requests) == asked
    run("fetch_models", "--version", "v2", "--name", "second", "--mirror", host.url)  # the extractors are there
    assert list_models(model_path) == ["second", "v2"]
    assert not any("hubert" in path for _, path, _ in host.requests[asked:])


def test_a_fetch_that_broke_goes_on_and_a_wrong_digest_is_refused(host: FileHost, model_path: Path) -> None:
    ar, vits = VOICE_FILES[ModelVersion.V2]
    host.files[vits.path].digest = "0" * 64
    assert "is not what was announced" in refusal("fetch_models", "--version", "v2", "--mirror", host.url)
    assert list_models(model_path) == []
    host.files[vits.path].digest = ""
    host.requests.clear()
    run("fetch_models", "--version", "v2", "--mirror", host.url)
    assert list_models(model_path) == ["v2"]
    assert not any(ar.path in path for _, path, _ in host.requests)


def test_without_a_network_the_cure_is_said(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    message = refusal("fetch_models", "--mirror", "http://127.0.0.1:9")
    assert message.startswith("No network: 127.0.0.1:9 cannot be reached")
    assert "import_model" in message
    assert not list_models(model_path)


def test_the_list_names_places_and_fetches_nothing(model_path: Path) -> None:
    listed = run("fetch_models", "--list", "--text-data", "--mirror", "http://mirror.example")
    assert "  200.0 MB  http://mirror.example/lj1995/GPT-SoVITS/resolve/main/v2Pro/s2Gv2ProPlus.pth" in listed
    assert "eres2net" in listed
    assert f"lid.176.bin  ->  {model_path / 'text' / 'lid.176.bin'}" in listed
    assert "eres2net" not in run("fetch_models", "--list", "--version", "v2")
    assert not model_path.exists()
    assert "'v3' is not supported" in refusal("fetch_models", "--version", "v3")
    assert "cannot name a model" in refusal("fetch_models", "--name", "text")


def test_text_data_comes_to_where_the_fronts_look(
    host: FileHost, model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = [dataclasses.replace(file, host=HUGGING_FACE, digest="") for file in TEXT_FILES]
    monkeypatch.setattr(fetch_models, "TEXT_FILES", here)
    tagger = "averaged_perceptron_tagger_eng"
    contents = {
        "engdict-hot.rep": b"cantoria K AE0 N T AO1 R IY0 AH0\n",
        "namedict_cache.pickle": pickle.dumps({"zo\u00eb": [["Z", "OW1", "IY0"]]}),
        "polyphonic.rep": "一行: ['yi1', 'hang2']\n".encode(),
        "lid.176.bin": small_language_model().read_bytes(),
        f"{tagger}.zip": zipped(
            {f"{tagger}/{tagger}.{part}.json": content for part, content in (("weights", {}), ("tagdict", {"a": "DT"}))}
            | {f"{tagger}/{tagger}.classes.json": ["DT"]}
        ),
        "G2PWModel.zip": zipped({"G2PWModel/POLYPHONIC_CHARS.txt": "x", "G2PWModel/config.py": "import os"}),
    }
    for file in here:
        host.add(file.path, contents.get(file.name, b""))
    run("fetch_models", "--version", "v2", "--text-data", "--mirror", host.url)
    data = TextData.load(model_path / "text")
    assert data.lexicon is not None
    assert data.lexicon.words["cantoria"] == "K AE0 N T AO1 R IY0 AH0"
    assert data.lexicon.names == {"zo\u00eb": "Z OW1 IY0"}
    assert data.tagger is not None
    assert data.tagger(["a"]) == ["DT"]
    assert data.corrections is not None
    assert data.corrections.readings == {"一行": ["yi1", "hang2"]}
    assert [path.name for path in (model_path / "text" / "g2pw").iterdir()] == ["POLYPHONIC_CHARS.txt"]
    assert {file.target for file in here} == {path.name for path in (model_path / "text").iterdir()}
    assert "Everything is there" in run("fetch_models", "--version", "v2", "--text-data", "--mirror", host.url)
    assert sorted(entry.name for entry in model_path.iterdir()) == ["extractors", "text", "v2"]


def zipped(entries: dict[str, object]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, entry in entries.items():
            archive.writestr(name, json.dumps(entry))
    return content.getvalue()
