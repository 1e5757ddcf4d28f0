"""The text encoder (RoBERTa), its vocabulary, and one vector for each phone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from synthesis.engines.gpt_sovits import bert
from synthesis.engines.gpt_sovits.bert import BertConfig, PhoneText, TextEncoder, Vocabulary
from synthesis.engines.gpt_sovits.errors import CheckpointMismatchError, ModelFileError, UnsupportedModelError
from synthesis.engines.gpt_sovits.parity.features import load_text_encoder, text_encoder_checks, text_encoder_shapes
from synthesis.engines.gpt_sovits.parity.report import GoldenSet, recipe_state

GOLDEN = Path(__file__).parents[1] / "golden" / "open"
SMALL = GoldenSet(GOLDEN, "bert_small24")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def config():
    return SMALL.description["config"]


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary.read(GOLDEN / "bert_vocab.txt")


@pytest.fixture(scope="module")
def encoder():
    return load_text_encoder(SMALL)


@pytest.fixture
def state(config):
    """As transformers writes BertForMaskedLM, its two names of the word embedding alike."""
    state = recipe_state(text_encoder_shapes(BertConfig.from_hugging_face(config)), SMALL.description["seed"])
    state["bert.embeddings.word_embeddings.weight"] = state["cls.predictions.decoder.weight"]
    return state


@pytest.mark.parametrize("name", ["bert_tiny", "bert_small24"])
def test_phone_features_equal_upstreams(name):
    cases = list(text_encoder_checks(GoldenSet(GOLDEN, name)))
    assert len(cases) == 6
    assert [case.name for case in cases if not case.holds] == []


# --- runs ---


def test_batch_gives_what_each_text_gives_alone(encoder):
    sentences = [
        "天地玄黄,宇宙洪荒.",
        "今",
        "今天天气很好,我们去公园!" * 4,
        "",
        "天a玄!",
    ]  # the third takes two windows
    texts = [PhoneText(text, [index % 4 for index in range(len(text))]) for text in sentences]
    together = encoder.phone_features_of_all(texts)
    for text, found in zip(texts, together, strict=True):
        assert found.shape == (64, sum(text.phones_per_character))
        torch.testing.assert_close(found, encoder.phone_features(text), rtol=0, atol=1e-5)


def test_many_texts_take_several_runs(encoder, monkeypatch):
    texts = [PhoneText("天地玄黄"[: 1 + index % 4], [2] * (1 + index % 4)) for index in range(9)]
    wanted = encoder.phone_features_of_all(texts)
    monkeypatch.setattr(bert, "MAX_BATCH_TOKENS", 12)
    for found, alike in zip(encoder.phone_features_of_all(texts), wanted, strict=True):
        torch.testing.assert_close(found, alike, rtol=0, atol=1e-5)


def test_text_longer_than_the_positions_is_read_in_windows(encoder):
    longest = encoder.config.positions - 2
    text = "今天天气很好我们" * (2 * longest // 8)
    whole = encoder.phone_features(PhoneText(text, [1] * len(text)))
    assert whole.shape == (64, len(text))
    pieces = -(-len(text) // longest)
    first = text[: len(text) // pieces]
    torch.testing.assert_close(
        whole[:, : len(first)], encoder.phone_features(PhoneText(first, [1] * len(first))), rtol=0, atol=1e-5
    )


def test_character_without_phones_takes_no_column(encoder):
    whole = encoder.phone_features(PhoneText("天地玄", (1, 1, 1)))
    torch.testing.assert_close(encoder.phone_features(PhoneText("天地玄", (2, 0, 1))), whole[:, [0, 0, 2]])


# Root mean square of the difference, measured 2 % and 0.25 %: 8 and 11 bits of mantissa over 22 layers.
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.04), (torch.float16, 0.006)])
def test_half_precision_stays_near(encoder, dtype, tolerance):
    text = PhoneText("今天天气很好,我们去公园!", [2] * 13)
    wanted = encoder.phone_features(text)
    found = load_text_encoder(SMALL, dtype=dtype).phone_features(text)
    assert found.dtype == torch.float32
    assert 0 < (found - wanted).square().mean().sqrt() / wanted.square().mean().sqrt() < tolerance


# --- loading ---


def as_bare_model(state):
    return {key.removeprefix("bert."): tensor for key, tensor in state.items() if key.startswith("bert.")}


def as_converted_from_tensorflow(state):
    return {
        key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for key, tensor in state.items()
    }


def with_unused(state):
    return state | {
        "bert.embeddings.position_ids": torch.arange(64)[None],
        "bert.pooler.dense.weight": torch.zeros(64, 64),
        "cls.seq_relationship.bias": torch.zeros(2),
        "bert.encoder.layer.22.output.dense.bias": torch.full((64,), torch.nan),
    }


@pytest.mark.parametrize("written", [as_bare_model, as_converted_from_tensorflow, with_unused])
def test_files_of_other_versions_give_the_same_numbers(encoder, state, config, vocabulary, written):
    text = PhoneText("天地玄黄", [1, 2, 1, 2])
    found = TextEncoder.from_state(written(state), config, vocabulary, device=CPU).phone_features(text)
    torch.testing.assert_close(found, encoder.phone_features(text), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda state: state.pop("bert.encoder.layer.21.output.dense.bias"), r"layer\.21\.output\.dense\.bias"),
        (lambda state: state.update({"bert.encoder.layer.24.output.dense.bias": torch.zeros(64)}), r"layer\.24"),
        (lambda state: state.update({"bert.embeddings.LayerNorm.bias": torch.zeros(63)}), "63"),
    ],
)
def test_file_that_does_not_fit_is_refused(state, config, vocabulary, change, named):
    TextEncoder.from_state(state, config, vocabulary, device=CPU)
    change(state)
    with pytest.raises(CheckpointMismatchError, match=named):
        TextEncoder.from_state(state, config, vocabulary, device=CPU)


@pytest.mark.parametrize(
    ("option", "value"),
    [("hidden_act", "relu"), ("position_embedding_type", "relative_key"), ("model_type", "roberta")],
)
def test_bert_of_another_build_is_refused(state, config, vocabulary, option, value):
    with pytest.raises(UnsupportedModelError, match=option):
        TextEncoder.from_state(state, {**config, option: value}, vocabulary, device=CPU)


# --- vocabulary ---

MARKS = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102}


def test_each_character_is_one_token():
    vocabulary = Vocabulary.from_tokens(MARKS | {"天": 7, "a": 8, "##a": 9, "豈": 10, "ab": 11})
    # Capitals and accents go; a compatibility ideograph is its plain form; spaces and emoji are unknown, yet counted.
    assert vocabulary.ids("天aÁab\uf900 😀") == [7, 8, 8, 8, 100, 10, 100, 100]


def test_cased_vocabulary_keeps_capitals(tmp_path):
    tokenizer = {"normalizer": {"type": "BertNormalizer", "lowercase": False}, "model": {"vocab": MARKS | {"A": 5}}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    assert Vocabulary.read(tmp_path / "tokenizer.json").ids("Aa") == [5, 100]


def test_both_files_give_one_vocabulary(tmp_path, vocabulary):
    tokens = (GOLDEN / "bert_vocab.txt").read_text(encoding="utf-8").split()
    tokenizer = {
        "normalizer": {"type": "BertNormalizer", "lowercase": True, "strip_accents": None},
        "model": {"type": "WordPiece", "vocab": {token: index for index, token in enumerate(tokens)}},
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    assert Vocabulary.read(tmp_path / "tokenizer.json") == vocabulary


def test_line_separator_in_the_vocabulary_shifts_no_id(tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n\u2028\n\x85\n天\n", encoding="utf-8")
    assert Vocabulary.read(tmp_path / "vocab.txt").ids("天\u2028") == [6, 4]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("vocab.txt", "[PAD]\n[UNK]\n天\n"),
        ("tokenizer.json", "{"),
        ("tokenizer.json", "[]"),
        ("tokenizer.json", '{"model": {"vocab": ["天"]}}'),
        ("tokenizer.json", '{"model": {"vocab": {"天": 1}}}'),
    ],
)
def test_file_that_is_no_vocabulary_is_refused(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ModelFileError):
        Vocabulary.read(tmp_path / name)


def test_vocabulary_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ModelFileError, match=r"vocab\.txt"):
        Vocabulary.read(tmp_path / "vocab.txt")
