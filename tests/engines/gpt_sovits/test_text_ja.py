from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthesis.engines.errors import UnspeakableTextError
from synthesis.engines.gpt_sovits.errors import ModelFileError
from synthesis.engines.gpt_sovits.parity.report import GoldenSet
from synthesis.engines.gpt_sovits.parity.text_alphabetic import check_japanese
from synthesis.engines.gpt_sovits.text.ja import read_japanese
from synthesis.engines.gpt_sovits.text.ja_dictionary import UserDictionary
from synthesis.engines.gpt_sovits.text.origins import never_backwards
from synthesis.engines.gpt_sovits.text.symbols import SymbolTable
from synthesis.engines.mapped_text import MappedText

GOLDEN = Path(__file__).parents[1] / "golden" / "open"


def read(text, table=SymbolTable.V2):
    return read_japanese(MappedText.of(text), table=table)


def test_reference_sentences_have_the_phones_and_accents_of_the_reference():
    for case in check_japanese(GoldenSet(GOLDEN, "text_ja")):
        assert case.holds, case.note


def test_reference_sentences_keep_their_text():
    for item in json.loads((GOLDEN / "text_ja.json").read_text(encoding="utf-8"))["items"]:
        assert read(item["text"]).norm_text == item["norm_text"]


@pytest.mark.parametrize(
    ("text", "phones"),
    [
        # Open JTalk 1.11 begins a phrase after て and before する, and lets the pitch fall on the ま of ます.
        ("走っています。", "h a [ sh i ] cl t e UNK i [ m a ] s u ."),
        ("旅行する。", "ry o [ k o o UNK s u [ r u ."),
        ("もう食べました。", "m o ] o UNK t a [ b e m a ] sh i t a ."),
        ("信じられません。", "sh i [ N j i r a r e m a s e ] N ."),
        ("ありがとうございます。", "a [ r i ] g a t o o UNK g o [ z a i m a ] s u ."),  # one entry of two phrases
        ("日本の夏", "n i [ cl p o ] N n o UNK n a [ ts u"),
        ("午後三時から", "g o ] g o UNK s a [ N ] j i k a r a"),
        ("６０％です", "r o [ k u j u cl p a a s e ] N t o d e s u"),
        ("二千三百五十六", "n i [ s e ] N UNK s a ] N by a k u UNK g o [ j u u UNK r o [ k u"),
    ],
)
def test_accent_phrases_are_those_of_open_jtalk(text, phones):
    assert " ".join(read(text).symbols) == phones


@pytest.mark.parametrize(
    ("text", "phones"),
    [
        ("はい!!?", "h a ] i !"),  # repeated marks: the first
        ("はい はい", "h a ] i h a ] i"),  # a space makes no phone
        ("「はい」", "UNK h a ] i UNK"),
        ("好き", "s u [ k i"),  # whispered vowels are plain ones
        ("。", "."),
    ],
)
def test_marks_around_and_within_words(text, phones):
    assert " ".join(read(text).symbols) == phones


def test_the_first_table_has_no_accent_marks():
    assert " ".join(read("はい。", SymbolTable.V1).symbols) == "h a UNK i ."


def test_phones_remember_the_words_they_say():
    text = "それは１２００円のMacですか？"
    phones = read(text)
    said = [(symbol, text[slice(*span)]) for symbol, span in zip(phones.symbols, phones.origins, strict=True)]
    assert said[:4] == [("s", "それ"), ("o", "それ"), ("[", "それ"), ("r", "それ")]
    assert "".join(symbol for symbol, word in said if word == "Mac") == "e[mueeshii"
    assert said[-1] == ("?", "？")
    assert {word for _, word in said} >= {"は", "円", "です", "か"}
    assert phones.origins == tuple(sorted(phones.origins))


@pytest.mark.parametrize("text", ["", " ", "🙂", "「」", "々", "ー", "ゝ", "\0\ud800"])
def test_nothing_to_say_is_an_error(text):
    with pytest.raises(UnspeakableTextError):
        read(text)


LETTERS = st.one_of(
    st.sampled_from(
        "あいうえおかがっゃょんーアヴ・ゝ々東京日本人一二時行食、。！？「」％abcXYZ0123456789１２\0\ud800٣"
    ),
    st.characters(),
)


@settings(max_examples=150, deadline=None)
@given(st.text(LETTERS, max_size=60), st.sampled_from([SymbolTable.V1, SymbolTable.V2]))
def test_any_text_has_phones_of_the_table_in_the_order_of_the_text(text, table):
    try:
        phones = read(text, table)
    except UnspeakableTextError:
        return
    assert phones.symbols
    assert all(symbol in table for symbol in phones.symbols)
    assert len(phones.origins) == len(phones.symbols)
    assert list(phones.origins) == sorted(phones.origins)
    assert all(0 <= start < end <= len(text) for start, end in phones.origins)


def test_an_operators_dictionary_adds_words(tmp_path):
    assert UserDictionary.load(tmp_path) is None
    entry = "加取愛,1348,1348,-5000,名詞,固有名詞,一般,*,*,*,加取愛,カントリア,カントリア,2/5,C1"
    (tmp_path / "userdict.csv").write_text(entry + "\n", encoding="utf-8")
    text = MappedText.of("加取愛です。")
    found = read_japanese(text, table=SymbolTable.V2, dictionary=UserDictionary.load(tmp_path))
    assert found.symbols[:10] == ("k", "a", "[", "N", "]", "t", "o", "r", "i", "a")
    assert read_japanese(text, table=SymbolTable.V2).symbols[:10] != found.symbols[:10]  # only where it was asked for


@pytest.mark.parametrize("content", ["", "word\n", "加取愛,x,1348,-5000,名詞,*,*,*,*,*,加取愛,カ,カ,2/5,C1\n"])
def test_a_file_that_is_no_dictionary_is_an_error(tmp_path, content):
    (tmp_path / "userdict.csv").write_text(content, encoding="utf-8")
    with pytest.raises(ModelFileError):
        UserDictionary.load(tmp_path)


def test_origins_never_go_backwards():
    assert never_backwards([(3, 5), (1, 4), (6, 7)]) == ((3, 5), (3, 5), (6, 7))


def test_long_runs_are_read_in_reasonable_time():
    assert len(read("漢字" * 1000).symbols) > 5000
    assert len(read("7" * 1000).symbols) > 1000


def test_threads_do_not_mix_their_sentences():
    sentences = ["東京タワーに行きましょう。", "これは1200円です。", "音声合成の研究をしています。"]
    alone = [read(sentence).symbols for sentence in sentences]
    found: dict[int, list[bool]] = {}

    def read_often(place: int) -> None:
        found[place] = [read(sentences[place]).symbols == alone[place] for _ in range(20)]

    threads = [threading.Thread(target=read_often, args=(place,)) for place in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {place: [True] * 20 for place in range(3)}
