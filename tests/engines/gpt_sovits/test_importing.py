"""From published checkpoints to a model folder and back."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from synthesis.engines.errors import EngineError
from synthesis.engines.gpt_sovits import importing
from synthesis.engines.gpt_sovits.bert import TextEncoder, Vocabulary
from synthesis.engines.gpt_sovits.config import ModelVersion
from synthesis.engines.gpt_sovits.content import ContentEncoder
from synthesis.engines.gpt_sovits.errors import (
    HostileCheckpointError,
    IncompatibleModelError,
    ModelExistsError,
    ModelFileError,
    ModelNotFoundError,
    UnsupportedModelVersionError,
)
from synthesis.engines.gpt_sovits.importing import ImportReport, import_sources
from synthesis.engines.gpt_sovits.model_folder import (
    TensorFile,
    VoiceModelFiles,
    choose_model,
    open_extractor,
    open_model,
    read_tensors,
)
from synthesis.engines.gpt_sovits.models import list_models
from synthesis.engines.gpt_sovits.parity.report import recipe_state
from synthesis.engines.gpt_sovits.parity.vits import speaker_shapes
from synthesis.engines.gpt_sovits.weights import CheckpointKind
from tests.engines.gpt_sovits.checkpoints import (
    AR_FILE,
    GOLDEN,
    VITS_FILE,
    hubert_folder,
    payload_of,
    roberta_folder,
    save,
    state_of,
)

EMBEDDING = "ar_text_embedding.word_embeddings.weight"


def import_voice(model_path: Path, *sources: Path, name: str = "demo", **options: Any) -> ImportReport:
    return import_sources(sources or (AR_FILE, VITS_FILE), model_path=model_path, name=name, **options)


def visible_and_hidden(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir()) if folder.exists() else []


def with_tensors(source: Path, path: Path, changes: dict[str, Tensor | None], **others: Any) -> Path:
    """A copy of a checkpoint with tensors replaced, added, or (None) left out."""
    payload = payload_of(source)
    state = {key: tensor for key, tensor in (payload["weight"] | changes).items() if tensor is not None}
    return save(payload | {"weight": state} | others, path)


# --- A voice model ---------------------------------------------------------------------------------------------------


def test_an_imported_model_gives_back_the_tensors_and_sizes_of_its_sources(tmp_path: Path) -> None:
    source = with_tensors(VITS_FILE, tmp_path / "s2G.pth", {"enc_q.pre.weight": torch.zeros(9, 9, 1)})
    report = import_voice(tmp_path / "models", AR_FILE, source)
    files = open_model(tmp_path / "models" / "demo")
    semantic, vits = read_tensors(files.semantic, verify=True), read_tensors(files.vits, verify=True)
    wanted = {key.removeprefix("model."): tensor for key, tensor in state_of(AR_FILE).items()}
    for found, expected in ((semantic, wanted), (vits, state_of(VITS_FILE))):  # the latter has no enc_q
        assert found.keys() == expected.keys()
        assert all(found[key].dtype == expected[key].dtype for key in expected)
        assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert (files.name, files.version) == ("demo", ModelVersion.V2)
    assert (files.semantic_config.heads, files.semantic_config.layers, files.vits_config.heads) == (4, 2, 2)
    assert files.vits_config.upsample_kernel_sizes == (16, 16, 8, 2, 2)
    (folder,) = report.folders
    assert (folder.folder, folder.digest) == (tmp_path / "models" / "demo", files.digest)
    described = json.loads((folder.folder / "config.json").read_text(encoding="utf-8"))
    assert described["source"]["vits"]["name"] == "s2G.pth"
    assert (described["sample_rate_hz"], described["hop_samples"]) == (32_000, 640)


def test_the_folder_can_be_read_by_the_user_of_the_workers(tmp_path: Path) -> None:
    import_voice(tmp_path)
    for file in (tmp_path / "demo").iterdir():
        assert file.stat().st_mode & stat.S_IROTH, file


def test_the_digest_is_of_the_content(tmp_path: Path) -> None:
    import_voice(tmp_path, name="one")
    import_voice(tmp_path, name="two")
    changed = with_tensors(AR_FILE, tmp_path / "other.ckpt", {"model.bert_proj.bias": torch.ones(64).half()})
    import_voice(tmp_path, changed, VITS_FILE, name="three")
    one, two, three = (open_model(tmp_path / name).digest for name in ("one", "two", "three"))
    assert one == two
    assert one != three


def test_a_name_in_use_needs_replace_and_mapped_tensors_survive_it(tmp_path: Path) -> None:
    import_voice(tmp_path)
    before = open_model(tmp_path / "demo")
    mapped = read_tensors(before.semantic)
    other = with_tensors(AR_FILE, tmp_path / "other.ckpt", {"model.bert_proj.bias": torch.ones(64).half()})
    with pytest.raises(ModelExistsError, match="--replace"):
        import_voice(tmp_path, other, VITS_FILE)
    assert open_model(tmp_path / "demo") == before
    import_voice(tmp_path, other, VITS_FILE, replace=True)
    after = open_model(tmp_path / "demo")
    assert after.digest != before.digest
    assert torch.equal(read_tensors(after.semantic)["bert_proj.bias"], torch.ones(64).half())
    assert torch.equal(mapped["bert_proj.bias"], state_of(AR_FILE)["model.bert_proj.bias"])
    assert visible_and_hidden(tmp_path) == ["demo", "other.ckpt"]


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import_voice(tmp_path)
    before = open_model(tmp_path / "demo")

    def full_disk(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(importing, "save_file", full_disk)
    for name in ("demo", "second"):
        with pytest.raises(OSError, match="No space left"):
            import_voice(tmp_path, name=name, replace=True)
    assert open_model(tmp_path / "demo") == before
    assert visible_and_hidden(tmp_path) == ["demo"]


def test_a_replacement_that_cannot_be_put_in_place_leaves_the_old_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_voice(tmp_path)
    before = open_model(tmp_path / "demo")
    rename = Path.rename

    def refuse_new(self: Path, target: Path) -> Path:
        if self.suffix == ".new":
            raise OSError(39, "Directory not empty")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse_new)
    with pytest.raises(ModelExistsError, match="somebody else"):
        import_voice(tmp_path, replace=True)
    assert open_model(tmp_path / "demo") == before
    assert visible_and_hidden(tmp_path) == ["demo"]


@pytest.mark.parametrize("name", ["", "Demo", "a b", "../x", "a/b", ".x", "-x", "extractors", "text", "x" * 65, "é"])
def test_names_that_are_no_folder_of_ours_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelFileError, match="cannot name a model"):
        import_voice(tmp_path / "models", name=name)
    assert not (tmp_path / "models").exists()


def test_the_named_version_must_be_the_files(tmp_path: Path) -> None:
    import_voice(tmp_path, version="v2")
    with pytest.raises(IncompatibleModelError, match=r"vits_tiny_v2\.pth is a v2 model, not v2ProPlus"):
        import_voice(tmp_path, name="other", version="v2ProPlus")
    with pytest.raises(UnsupportedModelVersionError, match="'v3' is not supported; v1, v2, v2Pro, v2ProPlus are"):
        import_voice(tmp_path, name="other", version="v3")
    assert list_models(tmp_path) == ["demo"]


# --- Sources that must not become a model ----------------------------------------------------------------------------


def broken(tmp_path: Path, fault: str) -> tuple[Path, Path]:
    ar, vits = tmp_path / "ar.ckpt", tmp_path / "vits.pth"
    ar_state, vits_state = state_of(AR_FILE), state_of(VITS_FILE)
    config = payload_of(AR_FILE)["config"]
    poisoned = vits_state["dec.conv_post.weight"].clone()
    poisoned.view(-1)[3] = float("inf" if fault == "inf" else "nan")
    rows = ar_state[f"model.{EMBEDDING}"]
    codes = ar_state["model.ar_audio_embedding.word_embeddings.weight"]
    changes: dict[str, Callable[[], tuple[Path, Path]]] = {
        "nan": lambda: (AR_FILE, with_tensors(VITS_FILE, vits, {"dec.conv_post.weight": poisoned})),
        "inf": lambda: (AR_FILE, with_tensors(VITS_FILE, vits, {"dec.conv_post.weight": poisoned})),
        "missing key": lambda: (AR_FILE, with_tensors(VITS_FILE, vits, {"flow.flows.2.pre.bias": None})),
        "missing AR key": lambda: (with_tensors(AR_FILE, ar, {"model.h.layers.1.norm2.bias": None}), VITS_FILE),
        "unknown key": lambda: (AR_FILE, with_tensors(VITS_FILE, vits, {"flow.flows.2.extra": torch.zeros(1)})),
        "misshapen": lambda: (AR_FILE, with_tensors(VITS_FILE, vits, {"enc_p.proj.bias": torch.zeros(3)})),
        "no heads": lambda: (with_tensors(AR_FILE, ar, {}, config={"model": {}}), VITS_FILE),
        "no config": lambda: (AR_FILE, with_tensors(VITS_FILE, vits, {}, config={})),
        "other hop": lambda: (
            AR_FILE,
            with_tensors(VITS_FILE, vits, {}, config={"model": {}, "data": {"hop_length": 512}}),
        ),
        "v1 symbols": lambda: (with_tensors(AR_FILE, ar, {f"model.{EMBEDDING}": rows[:512].clone()}), VITS_FILE),
        "fewer codes": lambda: (
            with_tensors(
                AR_FILE,
                ar,
                {
                    "model.ar_audio_embedding.word_embeddings.weight": codes[:513].clone(),
                    "model.ar_predict_layer.weight": ar_state["model.ar_predict_layer.weight"][:513].clone(),
                },
                config=config | {"model": config["model"] | {"vocab_size": 513, "EOS": 512}},
            ),
            VITS_FILE,
        ),
        "two alike": lambda: (VITS_FILE, VITS_FILE),
        "no vits": lambda: (AR_FILE, AR_FILE.with_name("nowhere")),
    }
    return changes[fault]()


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        ("nan", ModelFileError, r"vits\.pth: the tensor dec\.conv_post\.weight holds values that are not finite"),
        ("inf", ModelFileError, r"dec\.conv_post\.weight holds values that are not finite"),
        ("missing key", ModelFileError, r"vits\.pth: .*flow\.flows\.2\.pre\.bias"),
        ("missing AR key", ModelFileError, r"ar\.ckpt: .*h\.layers\.1\.norm2\.bias"),
        ("unknown key", ModelFileError, r"flow\.flows\.2\.extra"),
        ("misshapen", ModelFileError, r"enc_p\.proj\.bias"),
        ("no heads", ModelFileError, r"ar\.ckpt: .*'head'"),
        ("no config", ModelFileError, r"vits\.pth: .*'model'"),
        ("other hop", IncompatibleModelError, "hop_length 512; this engine has 640"),
        ("v1 symbols", IncompatibleModelError, "512 symbols, those of v1"),
        ("fewer codes", IncompatibleModelError, "speaks in 512 codes"),
        ("two alike", ModelFileError, "both a vits model"),
        ("no vits", ModelFileError, "no such file"),
    ],
)
def test_unfit_sources_leave_no_folder(tmp_path: Path, fault: str, error: type[EngineError], message: str) -> None:
    sources = broken(tmp_path, fault)
    with pytest.raises(error, match=message):
        import_voice(tmp_path / "models", *sources)
    assert visible_and_hidden(tmp_path / "models") == []


def test_a_voice_model_needs_both_halves_and_a_name(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"SoVITS file .* is missing"):
        import_voice(tmp_path, AR_FILE)
    with pytest.raises(ModelFileError, match=r"transformer .* is missing"):
        import_voice(tmp_path, VITS_FILE)
    with pytest.raises(ModelFileError, match="needs a name"):
        import_sources([AR_FILE, VITS_FILE], model_path=tmp_path, name=None)
    with pytest.raises(ModelFileError, match="holds no checkpoint"):
        import_voice(tmp_path, tmp_path)
    assert list_models(tmp_path) == []


def test_a_hostile_source_leaves_no_folder(tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "executed",)

    source = with_tensors(VITS_FILE, tmp_path / "vits.pth", {}, config={"model": Attack()})
    with pytest.raises(HostileCheckpointError):
        import_voice(tmp_path / "models", AR_FILE, source)
    assert visible_and_hidden(tmp_path) == ["vits.pth"]


# --- Extractors ------------------------------------------------------------------------------------------------------


def test_hugging_face_folders_become_shared_extractors(tmp_path: Path) -> None:
    models = tmp_path / "models"
    hubert, roberta = (
        hubert_folder(tmp_path / "hubert"),
        roberta_folder(tmp_path / "roberta", tokenizer="tokenizer.json"),
    )
    report = import_sources([hubert, AR_FILE, VITS_FILE, roberta], model_path=models, name="demo")
    assert [folder.kind for folder in report.folders] == ["voice model", "content", "bert"]
    content, bert = open_extractor(models, CheckpointKind.CONTENT), open_extractor(models, CheckpointKind.BERT)
    ContentEncoder.from_state(read_tensors(content.model), content.config, device=torch.device("cpu"))
    assert bert.vocabulary is not None
    vocabulary = Vocabulary.read(bert.vocabulary)
    assert vocabulary == Vocabulary.read(GOLDEN / "bert_vocab.txt")
    TextEncoder.from_state(read_tensors(bert.model), bert.config, vocabulary, device=torch.device("cpu"))
    assert "_name_or_path" not in content.config
    assert list_models(models) == ["demo"]
    with pytest.raises(ModelNotFoundError, match="The speaker extractor is not in"):
        open_extractor(models, CheckpointKind.SPEAKER)


def test_the_same_extractor_once_more_changes_nothing_and_another_needs_replace(tmp_path: Path) -> None:
    models = tmp_path / "models"
    first, other = hubert_folder(tmp_path / "first"), hubert_folder(tmp_path / "other", seed=1)
    (imported,) = import_sources([first], model_path=models, name=None).folders
    written = (models / "extractors" / "content" / "config.json").stat().st_mtime_ns
    (again,) = import_sources([first], model_path=models, name=None).folders
    assert (imported.was_there, again.was_there, again.digest) == (False, True, imported.digest)
    assert (models / "extractors" / "content" / "config.json").stat().st_mtime_ns == written
    with pytest.raises(ModelExistsError):
        import_sources([other], model_path=models, name=None)
    (replaced,) = import_sources([other], model_path=models, name=None, replace=True).folders
    assert replaced.digest != imported.digest == again.digest
    assert visible_and_hidden(models / "extractors") == ["content"]


def test_a_roberta_needs_a_vocabulary_of_its_own_size(tmp_path: Path) -> None:
    bare = roberta_folder(tmp_path / "bare", tokenizer="")
    with pytest.raises(ModelFileError, match=r"neither vocab\.txt nor tokenizer\.json"):
        import_sources([bare], model_path=tmp_path / "models", name=None)
    short = roberta_folder(tmp_path / "short", tokenizer="vocab.txt")
    tokens = (short / "vocab.txt").read_text(encoding="utf-8").splitlines()
    (short / "vocab.txt").write_text("\n".join(tokens[:-1]), encoding="utf-8")
    with pytest.raises(IncompatibleModelError, match=r"vocab\.txt has 53 tokens, model\.safetensors 54"):
        import_sources([short], model_path=tmp_path / "models", name=None)
    assert visible_and_hidden(tmp_path / "models") == []


def test_a_speaker_network_becomes_an_extractor(tmp_path: Path) -> None:
    state = recipe_state(speaker_shapes(planes=8, blocks=(1, 1, 1, 1)), seed=3)
    torch.save(state, tmp_path / "sv.ckpt")
    import_sources([tmp_path / "sv.ckpt"], model_path=tmp_path / "models", name=None)
    files = open_extractor(tmp_path / "models", CheckpointKind.SPEAKER)
    found = read_tensors(files.model)
    assert (files.vocabulary, files.config) == (None, {})
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], state[key]) for key in state)


def test_an_extractor_that_lacks_a_tensor_is_refused(tmp_path: Path) -> None:
    torch.save({"fuse34.local_att.0.weight": torch.zeros(1)}, tmp_path / "speaker.ckpt")
    with pytest.raises(ModelFileError, match=r"speaker\.ckpt: .*missing"):
        import_sources([tmp_path / "speaker.ckpt"], model_path=tmp_path / "models", name=None)


# --- Opening ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> VoiceModelFiles:
    import_voice(tmp_path)
    return open_model(tmp_path / "demo")


def refusal(file: TensorFile, *, verify: bool = False) -> str:
    with pytest.raises(ModelFileError) as caught:
        read_tensors(file, verify=verify)
    assert caught.value.code == "model_file_invalid"
    return caught.value.message


def test_a_tensor_file_that_changed_is_refused(files: VoiceModelFiles) -> None:
    path = files.semantic.path
    whole = path.read_bytes()
    read_tensors(files.semantic, verify=True)
    path.write_bytes(whole[:-1])
    assert "another length" in refusal(files.semantic)
    path.write_bytes(whole.replace(b"norm1", b"norm3", 1))
    assert "header" in refusal(files.semantic)
    path.write_bytes(b"\xff" * 8 + whole[8:])
    assert "header" in refusal(files.semantic)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    read_tensors(files.semantic)
    assert "content" in refusal(files.semantic, verify=True)
    path.unlink()
    assert "cannot be read" in refusal(files.semantic)
    with pytest.raises(ModelFileError, match="is missing"):
        open_model(path.parent)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("[]", "no JSON object"),
        ("{}", "is of format None"),
        ('{"format": 2}', "is of format 2"),
        ('{"format": 1}', "is not as `import_model` wrote it"),
        ('{"format": 1, "version": "v9"}', "is not as `import_model` wrote it"),
        ('{"format": 1, "version": "v2", "digest": "", "semantic": {"width": 1}}', "is not as `import_model` wrote it"),
    ],
)
def test_a_description_that_is_not_ours_is_refused(files: VoiceModelFiles, config: str, message: str) -> None:
    folder = files.vits.path.parent
    (folder / "config.json").write_text(config, encoding="utf-8")
    with pytest.raises(ModelFileError, match=message):
        open_model(folder)


def test_without_a_name_the_only_model_or_the_default_one_is_chosen(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="There are none"):
        choose_model(tmp_path / "nowhere")
    import_voice(tmp_path, name="first")
    assert choose_model(tmp_path).name == "first"
    import_voice(tmp_path, name="second")
    with pytest.raises(ModelNotFoundError, match="There are: first, second") as caught:
        choose_model(tmp_path)
    assert caught.value.code == "model_not_found"
    import_voice(tmp_path, name="default")
    assert choose_model(tmp_path).name == "default"
    assert choose_model(tmp_path, "second").name == "second"
    for name in ("third", "../first", ""):
        with pytest.raises(ModelNotFoundError):
            choose_model(tmp_path, name)
