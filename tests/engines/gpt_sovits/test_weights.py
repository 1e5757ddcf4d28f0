"""Reading checkpoints: the published formats give their tensors, and no file can make the reader run anything."""

from __future__ import annotations

import io
import os
import pickle
import random
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from synthesis.engines.errors import EngineError
from synthesis.engines.gpt_sovits import inert_pickle
from synthesis.engines.gpt_sovits.config import ModelVersion, SemanticConfig, VitsConfig
from synthesis.engines.gpt_sovits.errors import HostileCheckpointError, ModelFileError, UnsupportedModelVersionError
from synthesis.engines.gpt_sovits.inert_pickle import plain, read_pickle
from synthesis.engines.gpt_sovits.weights import CheckpointKind, read_checkpoint
from tests.engines.gpt_sovits.checkpoints import (
    AR_FILE,
    VITS_FILE,
    HParams,
    hparams_module,
    payload_of,
    pro_payload,
    retag,
    save,
    state_of,
)


def assert_equal_states(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for key, tensor in wanted.items():
        assert found[key].dtype == tensor.dtype
        assert torch.equal(found[key], tensor), key


# --- What the formats hold -------------------------------------------------------------------------------------------


def test_a_semantic_file_gives_its_half_tensors_and_configuration() -> None:
    checkpoint = read_checkpoint(AR_FILE)
    wanted = {key.removeprefix("model."): tensor for key, tensor in state_of(AR_FILE).items()}
    assert (checkpoint.kind, checkpoint.version) == (CheckpointKind.SEMANTIC, None)
    assert_equal_states(checkpoint.state, wanted)
    assert {tensor.dtype for tensor in checkpoint.state.values()} == {torch.float16}
    config = SemanticConfig.from_upstream(checkpoint.config, checkpoint.shapes)
    assert (config.width, config.heads, config.layers, config.phones, config.codes) == (64, 4, 2, 732, 1025)


def test_a_sovits_file_with_pickled_hyper_parameters_gives_plain_dictionaries() -> None:
    checkpoint = read_checkpoint(VITS_FILE)
    assert (checkpoint.kind, checkpoint.version) == (CheckpointKind.VITS, ModelVersion.V2)
    assert_equal_states(checkpoint.state, state_of(VITS_FILE))
    assert type(checkpoint.config["model"]) is dict
    config = VitsConfig.from_upstream(checkpoint.config, ModelVersion.V2)
    assert config.upsample_rates == (10, 8, 2, 2, 2)
    assert config.resblock_dilation_sizes == ((1, 3, 5),) * 3


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors", "trainer"])
def test_every_format_gives_the_same_tensors(tmp_path: Path, form: str) -> None:
    wanted = state_of(VITS_FILE)
    path = tmp_path / f"model.{form}"
    if form == "safetensors":
        save_file(wanted, path)
    elif form == "trainer":  # G_*.pth: no configuration inside
        torch.save({"model": wanted, "iteration": 7, "optimizer": {"state": {0: {"step": 3}}}, "lr": 1e-4}, path)
    else:
        torch.save({"weight": wanted, "config": {"model": {}}}, path, _use_new_zipfile_serialization=form == "zip")
    (tmp_path / "config.json").write_text('{"model": {"n_heads": 2}}', encoding="utf-8")
    checkpoint = read_checkpoint(path)
    assert_equal_states(checkpoint.state, wanted)
    assert checkpoint.config == {"model": {} if form in ("zip", "legacy") else {"n_heads": 2}}


def test_views_and_shared_storages_come_out_as_torch_gives_them(tmp_path: Path) -> None:
    base = torch.arange(24, dtype=torch.float32)
    wanted = {
        "bert.embeddings.word_embeddings.weight": base.view(4, 6),
        "cls.predictions.decoder.weight": base.view(4, 6),
        "transposed": base.view(4, 6).t(),
        "slice": base[5:9],
        "scalar": torch.tensor(7),
        "empty": torch.empty(0, 3),
    }
    state = OrderedDict(wanted)
    state._metadata = OrderedDict({"": {"version": 1}})  # type: ignore[attr-defined]  # of every Module.state_dict
    torch.save(state, tmp_path / "pytorch_model.bin")
    checkpoint = read_checkpoint(tmp_path / "pytorch_model.bin")
    assert checkpoint.kind is CheckpointKind.BERT
    assert_equal_states(checkpoint.state, wanted)


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("feature_extractor.conv_layers.0.conv.weight", CheckpointKind.CONTENT),
        ("embeddings.word_embeddings.weight", CheckpointKind.BERT),
        ("fuse34.local_att.0.weight", CheckpointKind.SPEAKER),
    ],
)
def test_extractors_are_told_by_their_tensors(tmp_path: Path, key: str, kind: CheckpointKind) -> None:
    torch.save({key: torch.zeros(2)}, tmp_path / "file.pt")
    assert read_checkpoint(tmp_path / "file.pt").kind is kind


def test_reading_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = retag(VITS_FILE, b"01", tmp_path / "tagged.pth")
    before = path.read_bytes()
    read_checkpoint(path).state["enc_p.ssl_proj.bias"].zero_()
    assert path.read_bytes() == before


# --- Versions --------------------------------------------------------------------------------------------------------


def with_symbols(count: int) -> dict[str, Any]:
    payload = payload_of(VITS_FILE)
    embedding = payload["weight"]["enc_p.text_embedding.weight"]
    return payload | {"weight": payload["weight"] | {"enc_p.text_embedding.weight": embedding[:count].clone()}}


@pytest.mark.parametrize(
    ("tag", "make", "version"),
    [
        (b"PK", lambda: with_symbols(322), "v1"),
        (b"00", lambda: with_symbols(322), "v1"),
        (b"PK", lambda: with_symbols(732), "v2"),
        (b"01", lambda: with_symbols(732), "v2"),
        (b"PK", lambda: pro_payload(plus=False), "v2Pro"),
        (b"05", lambda: pro_payload(plus=False), "v2Pro"),
        (b"PK", lambda: pro_payload(plus=True), "v2ProPlus"),
        (b"06", lambda: pro_payload(plus=True), "v2ProPlus"),
    ],
)
def test_the_version_follows_from_tag_and_tensors(
    tmp_path: Path, tag: bytes, make: Callable[[], dict[str, Any]], version: str
) -> None:
    assert read_checkpoint(save(make(), tmp_path / "model.pth", tag=tag)).version == version


def test_a_tag_that_contradicts_the_tensors_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="marked as v2ProPlus, but its tensors are of v2"):
        read_checkpoint(retag(VITS_FILE, b"06", tmp_path / "model.pth"))


@pytest.mark.parametrize(
    ("tag", "extra", "message"),
    [
        (b"02", {}, "is a v3 model"),
        (b"PK", {}, "is a v3 or v4 model"),
        (b"04", {"lora_rank": 32}, "is a v4 model"),
        (b"09", {}, "version mark 09"),
    ],
)
def test_v3_and_v4_are_refused_by_name(tmp_path: Path, tag: bytes, extra: dict[str, Any], message: str) -> None:
    payload = {"weight": {"cfm.estimator.proj_out.weight": torch.zeros(2)}, "config": {}} | extra
    with pytest.raises(UnsupportedModelVersionError, match=message) as caught:
        read_checkpoint(save(payload, tmp_path / "model.pth", tag=tag))
    assert caught.value.code == "unsupported_model_version"


# --- Hostile files ---------------------------------------------------------------------------------------------------


class Attack:
    """Pickles as a call of os.system that makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def hostile_payloads(marker: Path) -> dict[str, Any]:
    attack = Attack(marker)
    weight = {"enc_p.text_embedding.weight": torch.zeros(732, 2)}
    return {
        "config": {"weight": weight, "config": attack},
        "info": {"weight": weight, "config": {}, "info": attack},
        "weight": {"weight": weight | {"x": attack}, "config": {}},
        "nested": {"weight": weight, "config": HParams(train=HParams(seed=1), model=HParams(n_heads=attack))},
    }


@pytest.mark.parametrize("tag", [b"PK", b"06", b"legacy"])
@pytest.mark.parametrize("place", ["config", "info", "weight", "nested"])
def test_code_in_a_checkpoint_is_refused_by_name_and_never_runs(tmp_path: Path, place: str, tag: bytes) -> None:
    marker = tmp_path / "executed"
    payload = hostile_payloads(marker)[place]
    path = save(payload, tmp_path / "model.pth", tag=tag, legacy=tag == b"legacy")
    with pytest.raises(HostileCheckpointError, match=r"model\.pth: The checkpoint asks for posix\.system") as caught:
        read_checkpoint(path)
    assert (caught.value.code, caught.value.details) == ("model_file_hostile", {"name": "posix.system"})
    assert not marker.exists()


def test_the_hostile_files_are_real(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    with hparams_module():
        path = save(hostile_payloads(marker)["nested"], tmp_path / "model.pth")
        torch.load(path, weights_only=False)
    assert marker.exists()


@pytest.mark.parametrize(
    "stream",
    [
        b"cos\nsystem\n(S'touch {marker}'\ntR.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x01x\x85R.",  # STACK_GLOBAL
        b"(S'touch {marker}'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'touch {marker}'\no.",  # OBJ
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"ctorch._utils\n_rebuild_tensor_v2\n}S'__code__'\nNsb.",  # BUILD would set attributes of torch's function
        b"cutils\nHParams\nN}S'__setstate__'\nNs\x86b.",  # BUILD with slots would set attributes of the class
        b"cutils\nHParams\n)\x81ctorch\nload\nb.",
        b"ccollections\nOrderedDict\n(cutils\nHParams\ntR.",
        b"\x82\x01.",  # EXT1: whatever copyreg has registered
        b"ctorch\nHalfStorage\n(I9\ntR.",
        b"S'x'\n(tR.",
    ],
)
def test_hand_written_attacks_are_refused(tmp_path: Path, stream: bytes) -> None:
    marker = tmp_path / "executed"
    with pytest.raises(HostileCheckpointError):
        read_pickle(io.BytesIO(stream.replace(b"{marker}", str(marker).encode())))
    assert not marker.exists()


def test_damaged_pickles_raise_only_our_errors() -> None:
    with zipfile.ZipFile(VITS_FILE) as archive:
        whole = archive.read("archive/data.pkl")
    assert "weight" in read_pickle(io.BytesIO(whole))
    dice = random.Random(1)
    for _ in range(60):
        damaged = bytearray(whole[: dice.randrange(1, 3000)] if dice.random() < 0.3 else whole[-2500:])
        for _ in range(dice.randrange(1, 6)):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        try:
            read_pickle(io.BytesIO(bytes(damaged)))
        except ModelFileError:
            continue


def test_a_pickle_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inert_pickle, "MAX_OPCODES", 100)
    assert read_pickle(io.BytesIO(b"N" + b"N0" * 49 + b".")) is None
    with pytest.raises(HostileCheckpointError, match="longer than any"):
        read_pickle(io.BytesIO(b"N" + b"N0" * 50 + b"."))


def test_nothing_of_a_file_is_hashed_or_printed_but_names() -> None:
    nested = b")" + b"\x85" * 3  # a million of these tuples in one another overflow the C stack when they are hashed
    with pytest.raises(ModelFileError, match="pickle is damaged"):
        read_pickle(io.BytesIO(b"}" + nested + b"Ns."))
    with pytest.raises(ModelFileError, match="pickle is damaged"):
        read_pickle(io.BytesIO(b"(S'storage'\n" + nested + b"S'0'\nS'cpu'\nI8\ntQ."))
    bomb = b"]" + b"q\x00(h\x00h\x00e" * 30 + b")R."  # as text 2 ** 30 characters
    with pytest.raises(HostileCheckpointError, match="calls a list"):
        read_pickle(io.BytesIO(bomb))


def test_a_configuration_that_unfolds_without_end_is_refused() -> None:
    level: list[Any] = [1, 2]
    for _ in range(14):
        level = [level, level]  # 2 ** 15 numbers in a few bytes
    with pytest.raises(HostileCheckpointError, match="configuration is larger"):
        plain(level)
    level.append(level)
    with pytest.raises(HostileCheckpointError, match="configuration is larger"):
        plain(level)


def one_tensor_file(path: Path, **changes: Any) -> Path:
    """A checkpoint of one tensor over 8 floats, written by hand so that its description can lie."""
    said: dict[str, Any] = {"elements": 8, "offset": 0, "shape": (8,), "stride": (1,), "key": "0"} | changes

    class Storage:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, item: Any) -> Any:
            return ("storage", torch.FloatStorage, said["key"], "cpu", said["elements"]) if item is storage else None

        def reducer_override(self, item: Any) -> Any:
            if item is lie:
                build = torch._utils._rebuild_tensor_v2
                return build, (storage, said["offset"], said["shape"], said["stride"], False, OrderedDict())
            return NotImplemented

    storage, lie = Storage(), torch.Size([1])
    buffer = io.BytesIO()
    Pickler(buffer, protocol=2).dump({"fuse34.local_att.0.weight": lie})
    with zipfile.ZipFile(path, "w", said.get("compression", zipfile.ZIP_STORED)) as archive:
        archive.writestr("x/data.pkl", buffer.getvalue())
        archive.writestr("x/data/0", bytes(32))
        if "byteorder" in said:
            archive.writestr("x/byteorder", said["byteorder"])
    return path


def test_the_hand_written_file_is_read_when_it_does_not_lie(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(one_tensor_file(tmp_path / "model.ckpt"))
    assert torch.equal(checkpoint.state["fuse34.local_att.0.weight"], torch.zeros(8))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"offset": 1}, "reaches beyond its stored data"),
        ({"stride": (2,)}, "reaches beyond its stored data"),
        ({"shape": (9,)}, "reaches beyond its stored data"),
        ({"shape": (1 << 40,), "stride": (0,)}, "claim more data than the file holds"),
        ({"shape": (1 << 30, 1 << 30, 1 << 30), "stride": (0, 0, 0)}, "claim more data than the file holds"),
        ({"elements": 1 << 40}, "truncated or damaged"),
        ({"elements": 4, "shape": (4,)}, "truncated or damaged"),
        ({"offset": -1}, "pickle is damaged"),
        ({"stride": (-1,)}, "pickle is damaged"),
        ({"shape": (2, 4)}, "pickle is damaged"),
        ({"elements": "8"}, "pickle is damaged"),
        ({"key": "../../etc/passwd"}, "lacks the entry"),
        ({"key": "1"}, "lacks the entry"),
        ({"compression": zipfile.ZIP_DEFLATED}, "compressed or encrypted"),
        ({"byteorder": "big"}, "another byte order"),
    ],
)
def test_tensors_that_lie_about_their_data_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        read_checkpoint(one_tensor_file(tmp_path / "model.ckpt", **changes))


# --- Damaged files and files of another kind -------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [1, 3, 30, 1000, 100_000, 690_000, -1])
@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_a_truncated_file_is_refused(tmp_path: Path, form: str, keep: int) -> None:
    path = tmp_path / "model"
    if form == "safetensors":
        save_file(state_of(AR_FILE), path)
    else:
        save(payload_of(AR_FILE), path, legacy=form == "legacy")
    read_checkpoint(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:keep])
    with pytest.raises(ModelFileError) as caught:
        read_checkpoint(path)
    assert caught.value.code == "model_file_invalid"


def test_a_changed_byte_of_the_weights_is_noticed(tmp_path: Path) -> None:
    data = bytearray(AR_FILE.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "model.ckpt").write_bytes(data)
    with pytest.raises(ModelFileError, match="truncated or damaged"):
        read_checkpoint(tmp_path / "model.ckpt")


def test_an_archive_without_one_of_its_entries_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(AR_FILE) as whole, zipfile.ZipFile(tmp_path / "model.ckpt", "w") as less:
        for entry in whole.infolist():
            if not entry.filename.endswith("/data/5"):
                less.writestr(entry.filename, whole.read(entry))
    with pytest.raises(ModelFileError, match="lacks the entry ar_tiny/data/5"):
        read_checkpoint(tmp_path / "model.ckpt")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_with_two_entries_of_one_name_is_refused(tmp_path: Path) -> None:
    path = one_tensor_file(tmp_path / "model.ckpt")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x/data.pkl", b"}.")
    with pytest.raises(HostileCheckpointError, match="two entries of one name"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"just some text, longer than thirty-two bytes", "neither a torch checkpoint nor"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "Git LFS pointer"),
        (b"PK\x03\x04 and nothing else", "truncated or damaged"),
        (b"\x10\0\0\0\0\0\0\0{'not json'}     ", "safetensors"),
        (b"\xff\xff\xff\xff\xff\xff\xff\x7f{}", "safetensors"),
        (pickle.dumps({"a": 1}), "damaged"),
        (pickle.dumps(1) + pickle.dumps(2) + pickle.dumps({}), "no torch checkpoint"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "model.pth").write_bytes(content)
    with pytest.raises(ModelFileError, match=message):
        read_checkpoint(tmp_path / "model.pth")


def test_folders_missing_files_and_plain_archives_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="a folder"):
        read_checkpoint(tmp_path)
    with pytest.raises(ModelFileError, match="no such file"):
        read_checkpoint(tmp_path / "nowhere.pth")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("photo.jpg", b"x")
    with pytest.raises(ModelFileError, match=r"no data\.pkl"):
        read_checkpoint(tmp_path / "photos.zip")


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({"discriminators.0.conv.weight": torch.zeros(1)}, "discriminator"),
        ({"some.layer": torch.zeros(1)}, "none of the models this engine has. Its first tensors: some.layer"),
        ({"weight": {}, "config": {}}, "no tensors"),
        ({"weight": {"a": 1}, "config": {}}, "'a' is no tensor"),
        ([torch.zeros(1)], "no dictionary"),
        ({"enc_p.text_embedding.weight": torch.zeros(732, 2)}, r"dec\.ups\.0\.weight_v is missing"),
        ({"fuse34.local_att.0.weight": torch.zeros(1), "weight": torch.zeros(1), "x": {}}, "'x' is no tensor"),
    ],
)
def test_checkpoints_of_other_things_are_refused(tmp_path: Path, payload: Any, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        read_checkpoint(save(payload, tmp_path / "model.pth"))
