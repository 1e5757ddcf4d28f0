"""How the tones of Mandarin words change in speech.

The rules, their order and their conditions are those of upstream's text/tone_sandhi.py; the word lists are ours.
A word's tones are integers, one a character: 1 - 4, 5 for neutral, 0 where there is none (punctuation).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from synthesis.engines.gpt_sovits.text.neutral_tones import FULL_TONE_WORDS, NEUTRAL_TONE_WORDS
from synthesis.engines.gpt_sovits.text.syllables import NEUTRAL
from synthesis.engines.gpt_sovits.text.words_zh import Word, split_in_two

Tones = list[int]
ReadTones = Callable[[str], Tones]

_FINAL_PARTICLES = set("的地得吧呢啊呐哈嘛噻哦额哟喽啰耶喔诶吖嗨哒滴哩")
_ASPECT_KINDS = {"ul", "uz", "ug"}  # jieba's 了, 着, 过
_BEFORE_COUNTED_GE = set("几有两半多各整每做是")  # 个 behind these counts, as it does behind a number
_LONGEST_MERGE = 3


def merge_words(words: list[Word], read_tones: ReadTones) -> list[Word]:
    """Join the words whose tones change together: 不 and 一 with their neighbours, doubled words, third tones, 儿."""
    words = _merge_bu(words)
    words = _merge_yi(words)
    words = _merge_doubled(words)
    words = _merge_third_tones(words, read_tones, _are_all_third)
    words = _merge_third_tones(words, read_tones, _touch_as_third)
    return _merge_er(words)


def change_tones(word: Word, tones: Tones) -> Tones:
    """The tones of `word` as they are spoken, from those of its characters (as many)."""
    tones = list(tones)
    _change_bu(word.text, tones)
    _change_yi(word.text, tones)
    _neutralise(word, tones)
    _change_third_tones(word.text, tones)
    return tones


def _merge_bu(words: list[Word]) -> list[Word]:
    merged: list[Word] = []
    pending = ""
    for word in words:
        text = pending + word.text
        pending = "不" if text == "不" else ""
        if not pending:
            merged.append(replace(word, text=text))
    return [*merged, Word(pending, "d")] if pending else merged


def _merge_yi(words: list[Word]) -> list[Word]:
    joined: list[Word] = []  # 听 一 听 -> 听一听
    index = 0
    while index < len(words):
        word = words[index]
        if word.text == "一" and joined and index + 1 < len(words):
            before, behind = joined[-1], words[index + 1]
            if before.text == behind.text and before.kind == behind.kind == "v":
                joined[-1] = replace(before, text=f"{before.text}一{behind.text}")
                index += 2
                continue
        joined.append(word)
        index += 1
    merged: list[Word] = []  # 一 天 -> 一天
    for word in joined:
        if merged and merged[-1].text == "一":
            merged[-1] = replace(merged[-1], text="一" + word.text)
        else:
            merged.append(word)
    return merged


def _merge_doubled(words: list[Word]) -> list[Word]:
    merged: list[Word] = []
    for word in words:
        if merged and merged[-1].text == word.text:
            merged[-1] = replace(word, text=word.text * 2, kind=merged[-1].kind)
        else:
            merged.append(word)
    return merged


def _are_all_third(before: Tones, behind: Tones) -> bool:
    return all(tone == 3 for tone in before + behind)


def _touch_as_third(before: Tones, behind: Tones) -> bool:
    return before[-1:] == [3] and behind[:1] == [3]


def _merge_third_tones(
    words: list[Word], read_tones: ReadTones, belong_together: Callable[[Tones, Tones], bool]
) -> list[Word]:
    tones = [read_tones(word.text) for word in words]
    merged: list[Word] = []
    has_just_merged = False
    for index, word in enumerate(words):
        before = words[index - 1] if index else None
        has_just_merged = (
            before is not None
            and not has_just_merged
            and belong_together(tones[index - 1], tones[index])
            and not _is_doubled(before.text)  # its second half is to lose its tone
            and len(before.text) + len(word.text) <= _LONGEST_MERGE
        )
        if has_just_merged:
            merged[-1] = replace(merged[-1], text=merged[-1].text + word.text)
        else:
            merged.append(word)
    return merged


def _is_doubled(text: str) -> bool:
    return len(text) == 2 and text[0] == text[1]


def _merge_er(words: list[Word]) -> list[Word]:
    merged: list[Word] = []
    for word in words:
        if merged and word.text == "儿":
            merged[-1] = replace(merged[-1], text=merged[-1].text + "儿")
        else:
            merged.append(word)
    return merged


def _change_bu(text: str, tones: Tones) -> None:
    if len(text) == 3 and text[1] == "不":  # 看不懂
        tones[1] = NEUTRAL
        return
    for index, letter in enumerate(text[:-1]):
        if letter == "不" and tones[index + 1] == 4:  # 不怕
            tones[index] = 2


def _change_yi(text: str, tones: Tones) -> None:
    if "一" not in text or all(letter.isnumeric() for letter in text):  # 二一零
        return
    if len(text) == 3 and text[1] == "一" and text[0] == text[2]:  # 看一看
        tones[1] = NEUTRAL
    elif text.startswith("第一"):
        tones[1] = 1
    else:
        for index, letter in enumerate(text[:-1]):
            if letter != "一":
                continue
            if tones[index + 1] == 4:  # 一段
                tones[index] = 2
            elif text[index + 1] not in ",.!?":  # 一天
                tones[index] = 4


def _neutralise(word: Word, tones: Tones) -> None:
    text, kind = word.text, word.kind
    if kind[:1] in set("nva") and text not in FULL_TONE_WORDS:  # 奶奶, 试试, 旺旺
        for index in range(1, len(text)):
            if text[index] == text[index - 1] != "幺":  # a one in a row of digits
                tones[index] = NEUTRAL
    counted = text.find("个")
    if text[-1] in _FINAL_PARTICLES or _ends_in_weak_syllable(word):
        tones[-1] = NEUTRAL
    elif text == "个" or (counted >= 1 and (text[counted - 1].isnumeric() or text[counted - 1] in _BEFORE_COUNTED_GE)):
        tones[counted] = NEUTRAL
    elif _is_neutral_word(text):
        tones[-1] = NEUTRAL
    middle = split_in_two(text)
    if _is_neutral_word(text[:middle]):
        tones[middle - 1] = NEUTRAL
    if _is_neutral_word(text[middle:]):
        tones[-1] = NEUTRAL


def _ends_in_weak_syllable(word: Word) -> bool:
    text, kind = word.text, word.kind
    if len(text) == 1:
        return text in set("了着过") and kind in _ASPECT_KINDS
    return (
        (text[-1] in set("们子") and kind in {"r", "n"} and text not in FULL_TONE_WORDS)
        or (text[-1] in set("上下里") and kind in {"s", "l", "f"})  # 桌上, 地下, 家里
        or (text[-1] in set("来去") and text[-2] in set("上下进出回过起开"))  # 上来, 下去
    )


def _is_neutral_word(text: str) -> bool:
    return text in NEUTRAL_TONE_WORDS or text[-2:] in NEUTRAL_TONE_WORDS


def _change_third_tones(text: str, tones: Tones) -> None:
    if len(text) == 2 and tones == [3, 3]:
        tones[0] = 2
    elif len(text) == 3:
        middle = split_in_two(text)
        if tones == [3, 3, 3]:
            if middle == 2:  # 蒙古/包
                tones[:2] = [2, 2]
            elif middle == 1:  # 纸/老虎
                tones[1] = 2
        elif middle == 2 and tones[:2] == [3, 3]:  # 所有/人
            tones[0] = 2
        elif middle == 1:
            if tones[1:] == [3, 3]:
                tones[1] = 2
            elif tones[:2] == [3, 3]:  # 好/喜欢
                tones[0] = 2
    elif len(text) == 4:  # an idiom: two and two
        for start in (0, 2):
            if tones[start : start + 2] == [3, 3]:
                tones[start] = 2
