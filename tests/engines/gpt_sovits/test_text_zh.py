from __future__ import annotations

import json
import random
import sys
import tempfile
import types
from pathlib import Path

import numpy as np
import pypinyin
import pytest

from synthesis.engines.base import Pronunciation
from synthesis.engines.errors import UnspeakableTextError
from synthesis.engines.gpt_sovits.errors import ModelFileError
from synthesis.engines.gpt_sovits.parity.report import GoldenSet
from synthesis.engines.gpt_sovits.parity.text_report import edit_distance, text_case
from synthesis.engines.gpt_sovits.parity.text_zh import check_chinese
from synthesis.engines.gpt_sovits.text import words_zh
from synthesis.engines.gpt_sovits.text.normalise_zh import normalise_mandarin, read_amount
from synthesis.engines.gpt_sovits.text.polyphones import PolyphoneReader, load_polyphones
from synthesis.engines.gpt_sovits.text.syllables import Syllable
from synthesis.engines.gpt_sovits.text.symbols import SymbolTable, TableName
from synthesis.engines.gpt_sovits.text.yue import read_cantonese
from synthesis.engines.gpt_sovits.text.zh import Corrections, read_chinese
from synthesis.engines.mapped_text import MappedText
from synthesis.engines.pronunciations import apply_pronunciations

GOLDEN = Path(__file__).parents[1] / "golden" / "open"


def say(text: str, table: TableName = "v2") -> str:
    return " ".join(read_chinese(MappedText.of(text), table=table).symbols)


def spell(text: str) -> str:
    return normalise_mandarin(MappedText.of(text)).text


# --- against the reference ---------------------------------------------------------------------------------------


def test_reference_sentences_have_the_phones_of_the_reference_in_every_mode():
    cases = list(check_chinese(GoldenSet(GOLDEN, "text_zh")))
    assert [case.name for case in cases] == ["text_zh.v2_pypinyin", "text_zh.v2_g2pw_injected", "text_zh.v1_pypinyin"]
    for case in cases:
        assert case.error == 0, case.note


def test_reference_sentences_have_the_ids_and_counts_of_the_reference():
    for item in json.loads((GOLDEN / "text_zh.json").read_text(encoding="utf-8"))["items"]:
        if item["mode"] == "v2_g2pw_injected":
            continue
        found = read_chinese(MappedText.of(item["text"]), table=item["version"])
        assert found.norm_text == item["norm_text"]
        assert SymbolTable.named(item["version"]).ids(found.symbols) == item["phone_ids"]
        assert list(found.phones_per_character or ()) == item["word2ph"]


def test_a_set_holds_only_if_both_its_phones_and_its_sentences_do():
    good = [(f"{n}", ["a"] * 100, ["a"] * 100) for n in range(19)]
    one_phone_off = ("x", ["a"] * 99 + ["b"], ["a"] * 100)
    assert text_case("set", [*good, one_phone_off]).holds
    many_sentences_off = text_case("set", [*good[:16], *[one_phone_off] * 3])
    assert (many_sentences_off.name, many_sentences_off.holds) == ("set (sentences)", False)
    assert not text_case("set", [*good, ("y", ["b"] * 100, ["a"] * 100)]).holds
    assert "x: b / a: why" in text_case("set", [*good, one_phone_off], causes={"x": "why"}).note
    assert text_case("set", [("x", ["a", "#"], ["a"])], ignore={"#"}).error == 0
    assert not text_case("set", []).holds


def test_phones_are_compared_by_edit_distance():
    assert edit_distance("kitten", "sitting") == 3
    assert edit_distance("", "abc") == 3


# --- numbers and signs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("1998年12月05日", "一九九八年十二月五日"),
        ("2024-03-09出发", "二零二四年三月九日出发"),
        ("08:05:30到", "八点零五分三十秒到"),
        ("9:30开门", "九点半开门"),
        ("8:30-9:15", "八点半至九点十五分"),
        ("8:00~9:30", "八点至九点三十分"),
        ("-7℃和36.5摄氏度", "零下七度和三十六点五摄氏度"),
        ("3%~5%", "百分之三至百分之五"),
        ("12mm厚，3km²", "十二毫米厚,三千米的二次方"),
        ("5m/s", "五米每秒"),
        ("7-2=5", "七减二等于五"),
        ("2¹⁰", "二的十次方"),
        ("-3/4", "负四分之三"),
        ("0.5%", "百分之零点五"),
        ("13912345678", "幺三九幺二三四五六七八"),
        ("电话62345678", "电话六二三四五六七八"),
        ("4008201234", "四零零八二零幺二三四"),
        ("3~5天", "三到五天"),
        ("-12", "负十二"),
        ("1.10.2", "一点一零点二"),
        ("3.50元", "三点五零元"),
        (".5", "零点五"),
        ("2个，20+人，300多名", "两个,二十多人,三百多名"),
        ("5万元，8000万人", "五万元,八千万人"),
        ("007", "零零七"),
        ("101010个", "十万一千零一十个"),
        ("①λ＋", "一拉姆达"),
        ("１２个Ａ", "十二个"),
        ("٣个", "三个"),
        ("《書》【裡】（說）", "书里说"),
        ("乾淨的乾隆", "干净的乾隆"),
        ("等等……好，，，！！", "等等…好,"),
        ("a/b", "每"),
    ],
)
def test_numbers_and_signs_become_words(written, spoken):
    assert spell(written) == spoken


def test_a_number_of_any_length_is_read():
    assert read_amount("100001234") == "一亿零一千二百三十四"
    assert read_amount("1000000001") == "十亿零一"
    assert read_amount("120030004") == "一亿二千零三万零四"
    assert read_amount("0" * 50 + "10") == "十"
    assert read_amount("1" + "0" * 16) == "一亿亿"
    assert len(read_amount("9" * 4000)) > 4000


# --- tones --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "symbols"),
    [
        ("不怕", "b u2 p a4"),
        ("不好", "b u4 h ao3"),
        ("看不懂", "k an4 b u5 d ong3"),
        ("一段", "y i2 d uan4"),
        ("一天", "y i4 t ian1"),
        ("第一天", "d i4 y i1 t ian1"),
        ("看一看", "k an4 y i5 k an4"),
        ("二一零", "EE er4 y i1 l ing2"),
        ("水果", "sh ui2 g uo3"),
        ("纸老虎", "zh ir3 l ao2 h u3"),
        ("展览馆", "zh an2 l an2 g uan3"),
        ("妈妈的朋友们", "m a1 m a5 d e5 p eng2 y ou5 m en5"),
        ("桌子上", "zh uo1 z i05 sh ang4"),
        ("屋里", "w u1 l i5"),
        ("原子", "y van2 z i03"),
        ("三个", "s an1 g e5"),
        ("骆驼和苍蝇", "l uo4 t uo5 h e2 c ang1 y ing5"),
        ("幺幺零", "y ao1 y ao1 l ing2"),
        ("女儿", "n v3 EE er2"),
        ("学月元云鱼烟夜", "x ve2 y ve4 y van2 y vn2 y v2 y En1 y E4"),
        ("嗯哼", "EE en1 h eng1"),
    ],
)
def test_tones_change_in_speech(text, symbols):
    assert say(text) == symbols


def test_er_takes_the_tone_before_it_in_the_second_table_only():
    assert say("花瓶儿") == "h ua1 p ing2 EE er2"
    assert say("一点儿") == "y i4 d ian3 EE er3"
    assert say("一点儿", "v1") == "y i4 d ian3 EE er2"
    assert say("孤儿") == "g u1 EE er2"


def test_money_and_caret_turn_commas_into_pauses():
    assert say("好，￥五元") == "h ao3 SP2 w u3 y van2"
    assert say("好^走，来") == "h ao3 SP3 z ou3 SP3 l ai2"


def test_every_syllable_that_the_dictionary_knows_has_phones():
    style = pypinyin.Style.TONE3
    readings = {
        reading
        for code in range(0x4E00, 0x9FA6)
        for choices in pypinyin.pinyin(
            chr(code), style=style, heteronym=True, errors="ignore", neutral_tone_with_five=True
        )
        for reading in choices
    }
    silent = {reading for reading in readings if "UNK" in Syllable.of(reading).phones()}
    assert len(readings) > 1200
    assert silent == set()


# --- origins ------------------------------------------------------------------------------------------------------


def test_phones_know_the_characters_they_say():
    text = "（共）85%的人，2个"
    found = read_chinese(MappedText.of(text), table="v2")
    said = [(symbol, text[slice(*span)]) for symbol, span in zip(found.symbols, found.origins, strict=True)]
    assert said[:2] == [("g", "共"), ("ong4", "共")]
    assert {written for _, written in said[2:12]} <= {"85%", "%", "85", "8", "5"}
    assert said[-2:] == [("g", "个"), ("e5", "个")]


def test_a_pronunciation_override_points_at_what_is_written():
    mapped = apply_pronunciations("我在 USA 。", [Pronunciation("USA", "美国")])
    found = read_chinese(mapped, table="v2")
    assert " ".join(found.symbols) == "w o3 z ai4 m ei3 g uo2 ."
    assert found.origins[4:8] == ((3, 6),) * 4


# --- the polyphone network ----------------------------------------------------------------------------------------


def test_injected_readings_are_used_and_corrected_by_word(tmp_path):
    def all_wrong(segments):
        return [["ba1" if "\u4e00" <= letter <= "\u9fff" else letter for letter in segment] for segment in segments]

    (tmp_path / "polyphonic.rep").write_text("银行: ['yin2','hang2']\n", encoding="utf-8")
    (tmp_path / "polyphonic-fix.rep").write_text("的: ['de5']\nbroken line\n坏词: ['huai4']\n", encoding="utf-8")
    corrections = Corrections.load(tmp_path)
    found = read_chinese(MappedText.of("银行的人。"), table="v2", pinyin=all_wrong, corrections=corrections)
    assert " ".join(found.symbols) == "y in2 h ang2 d e5 b a1 ."
    without = read_chinese(MappedText.of("银行的人。"), table="v2", pinyin=all_wrong)
    assert " ".join(without.symbols) == "y in2 h ang2 b a5 b a1 ."  # pypinyin's phrases correct, single words stay


def test_a_list_of_readings_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "polyphonic.rep").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelFileError):
        Corrections.load(tmp_path)


@pytest.fixture
def network_folder(tmp_path):
    """The tables of a network that knows two polyphones, in the published files' format."""
    polyphones = ["長\tㄔㄤ2", "長\tㄓㄤ3", "行\tㄏㄤ2", "行\tㄒㄧㄥ2", "一\tㄧ1"]
    (tmp_path / "POLYPHONIC_CHARS.txt").write_text("\n".join(polyphones) + "\n", encoding="utf-8")
    (tmp_path / "MONOPHONIC_CHARS.txt").write_text("銀\tㄧㄣ2\n似\tㄙ4\n", encoding="utf-8")
    table = {"ㄔㄤ": "chang", "ㄓㄤ": "zhang", "ㄏㄤ": "hang", "ㄒㄧㄥ": "xing", "ㄧㄣ": "yin", "ㄙ": "si", "ㄧ": "yi"}
    (tmp_path / "bopomofo_to_pinyin_wo_tune_dict.json").write_text(json.dumps(table), encoding="utf-8")
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "銀", "行", "長"]
    (tmp_path / "vocab.txt").write_text("\n".join(tokens), encoding="utf-8")
    return tmp_path


def test_the_network_is_asked_about_the_characters_with_several_readings(network_folder):
    asked = []

    def network(inputs):
        asked.append(inputs)
        return inputs["phoneme_mask"] * np.arange(1, inputs["phoneme_mask"].shape[1] + 1)  # the last label it may give

    reader = PolyphoneReader.from_tables(network_folder, network_folder / "vocab.txt", network)
    assert reader.labels == ("ㄏㄤ2", "ㄒㄧㄥ2", "ㄓㄤ3", "ㄔㄤ2", "ㄧ1")
    assert reader(["银行长,", "一"]) == [["yin2", "xing2", "chang2", ","], ["yi1"]]
    (inputs,) = asked
    assert inputs["input_ids"].tolist() == [[2, 4, 5, 6, 1, 3]] * 2  # [CLS] 銀 行 長 [UNK] [SEP]
    assert inputs["position_ids"].tolist() == [2, 3]
    assert inputs["char_ids"].tolist() == [1, 2]  # in the sorted list 一 行 長
    assert inputs["phoneme_mask"].tolist() == [[1, 1, 0, 0, 0], [0, 0, 1, 1, 0]]
    assert inputs["attention_mask"].all()
    assert {inputs[name].dtype for name in ("input_ids", "token_type_ids", "attention_mask")} == {np.dtype(np.int64)}


def test_the_network_sees_a_stretch_around_the_character(network_folder):
    lengths = []

    def network(inputs):
        lengths.append(inputs["input_ids"].shape[1])
        letters = inputs["input_ids"][np.arange(len(inputs["position_ids"])), inputs["position_ids"]]
        assert set(letters.tolist()) == {5}
        return inputs["phoneme_mask"]

    reader = PolyphoneReader.from_tables(network_folder, network_folder / "vocab.txt", network)
    (read,) = reader(["人" * 50 + "行" + "人" * 50])
    assert (read[50], read[0], lengths) == ("hang2", "ren2", [16 + 1 + 16 + 2])
    reader(["行" + "人" * 900 + "行"])
    assert max(lengths) <= 512


def test_files_or_runtime_missing_leave_the_dictionary(network_folder, monkeypatch):
    vocabulary = network_folder / "vocab.txt"
    assert load_polyphones(network_folder, vocabulary) is None  # no network file
    (network_folder / "g2pW.onnx").write_bytes(b"?")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert load_polyphones(network_folder, vocabulary) is None


def test_a_network_is_loaded_with_its_tables(network_folder, monkeypatch):
    (network_folder / "g2pW.onnx").write_bytes(b"weights")

    class Session:
        def __init__(self, path, options, providers):
            if Path(path).read_bytes() != b"weights":
                raise RuntimeError("not a network")

        def run(self, outputs, inputs):
            return [inputs["phoneme_mask"]]

    runtime = types.SimpleNamespace(InferenceSession=Session, SessionOptions=types.SimpleNamespace)
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    reader = load_polyphones(network_folder, network_folder / "vocab.txt")
    assert reader is not None
    assert reader(["行"]) == [["hang2"]]
    (network_folder / "g2pW.onnx").write_bytes(b"?")
    with pytest.raises(ModelFileError):
        load_polyphones(network_folder, network_folder / "vocab.txt")


# --- robustness ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "   ", "😀👍", "hello world", "\ud800", "\x00", "（）“”", "かな"])
def test_nothing_to_say_is_an_error(text):
    with pytest.raises(UnspeakableTextError):
        read_chinese(MappedText.of(text), table="v2")


def test_a_character_without_a_reading_is_unknown():
    assert say("兙好") == "UNK UNK h ao3"


_SOUND = "我们 今天 一 不 儿 了 个 子 嗯 學習 乾 麼 兙 㐀 𠀀 看一看 好不好 第一 幺幺 ABC kg m² かな 한글 ру ไทย"
_NUMBERS = "½ ١٢٣ ９８ ⅷ 〇 零 1 23 456 7890 3.14 1,000 2020-01-01 2020年13月40日 25:61 12:30 8:00-9:30 -5℃ 1/0 1e9 00"
_MARKS = "😀 👨‍👩‍👧 。 ， ！ ？ … —— ... ~ ( ) 「 ” ^ ￥ $ % + - × ÷ = / . : ① Ω"
_PIECES = f"{_SOUND} {_NUMBERS} {_MARKS}".split(" ")
_PIECES += ["\u0301", "\u200b", "\ud800", "\udfff", "\x00", "\n", "\t", " ", "\u3000", "\ufffd", "\U0010ffff", "9" * 60]


def _fuzzed(count: int) -> list[str]:
    random_ = random.Random(20240501)
    texts = ["".join(random_.choices(_PIECES, k=random_.randint(0, 10))) for _ in range(count * 8 // 10)]
    planes = (
        (0x20, 0x250),
        (0x4E00, 0xA000),
        (0x2000, 0x2C00),
        (0x3000, 0x4000),
        (0xD800, 0x11000),
        (0x11000, 0x110000),
    )
    while len(texts) < count:
        texts.append("".join(chr(random_.randrange(*random_.choice(planes))) for _ in range(random_.randint(1, 15))))
    return texts


@pytest.mark.parametrize("front", ["v1", "v2", "yue"])
def test_any_text_is_read_or_refused(front):
    table = SymbolTable.V1 if front == "v1" else SymbolTable.V2
    refused = 0
    for text in _fuzzed(1000):
        mapped = MappedText.of(text)
        try:
            found = read_cantonese(mapped) if front == "yue" else read_chinese(mapped, table=front)
        except UnspeakableTextError:
            refused += 1
            continue
        assert found.symbols
        assert all(symbol in table for symbol in found.symbols)
        assert len(found.symbols) == len(found.origins) == sum(found.phones_per_character or ())
        assert len(found.phones_per_character or ()) == len(found.norm_text)
        starts = [start for start, _ in found.origins]
        ends = [end for _, end in found.origins]
        assert starts == sorted(starts)
        assert ends == sorted(ends)
        assert all(0 <= start < end <= len(text) for start, end in found.origins)
    assert refused < 400


def test_a_long_text_is_read():
    found = read_chinese(MappedText.of("今天有3个人，我们一起去。" * 300), table="v2")
    assert len(found.norm_text) == 13 * 300


def test_the_dictionary_trusts_no_shared_cache_file(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    words_zh._load_taggers.cache_clear()
    assert [word.text for word in words_zh.split_words("你好世界")] == ["你好", "世界"]
    assert list(tmp_path.iterdir()) == []
