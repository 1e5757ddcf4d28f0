"""Accent phrases of Japanese as Open JTalk 1.11 forms them, the way the published models learned to hear them.

pyopenjtalk-plus reads words better than the dictionary of those models but joins more of them into one accent phrase
and has accent rules of its own. Where phrases begin and which mora carries the fall is therefore decided here again,
after the words are known. The rules for phrases are the 18 of Open JTalk's njd_set_accent_phrase.c, those for the fall
the combination types of njd_set_accent_type.c (F, C, P: Sagisaka and Sato 1983), and the types of auxiliaries and
particles, which pyopenjtalk-plus changed, are given in JOINING as the NAIST dictionary has them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any

Word = dict[
    str, Any
]  # a word of pyopenjtalk's front end: string, pos, pos_group1.., cform, acc, mora_size, chain_rule, ..

_ACCENT_AND_MORAS = re.compile(r"(\d+)/(\d+)\Z")
_STANDING_ALONE = frozenset({"副詞", "接続詞", "連体詞"})
_ATTACHED = frozenset({"助動詞", "助詞"})
_DIGITS = frozenset("一二三四五六七八九")
_POWERS = frozenset("十百千万億兆")
_KATAKANA = re.compile("[ァ-ヶー]+\\Z")

# (part of speech, dictionary form) -> how it joins the accent of what stands before it
JOINING = {
    ("助動詞", "ます"): "動詞%F4@1/助詞%F2@1",
    ("助動詞", "たい"): "動詞%F4@1",
    ("助動詞", "ない"): "動詞%F3@0/形容詞%F2@1",
    ("助動詞", "た"): "動詞%F2@1/形容詞%F4@-2",
    ("助動詞", "だ"): "名詞%F1/動詞%F1",
    ("助動詞", "です"): "名詞%F2@1/動詞%F1/形容詞%F2@0",
    ("助動詞", "ぬ"): "動詞%F4@1",
    ("助動詞", "ん"): "動詞%F4@0",
    ("助詞", "から"): "名詞%F1",
    ("助詞", "だけ"): "形容詞%F1/名詞%F5/動詞%F1",
    ("助詞", "たり"): "名詞%F2@1/動詞%F4@1",
    ("助詞", "て"): "動詞%F1/形容詞%F1/名詞%F5",
    ("助詞", "と"): "形容詞%F1/動詞%F1",
    ("助詞", "に"): "動詞%F5/形容詞%F1/名詞%F1",
    ("助詞", "の"): "動詞%F2@0/形容詞%F1",
    ("助詞", "は"): "名詞%F1/動詞%F2@0/形容詞%F2@0",
    ("助詞", "ほど"): "動詞%F1/形容詞%F1/名詞%F5",
    ("助詞", "も"): "名詞%F1/動詞%F2@0/形容詞%F2@0",
    ("助詞", "よ"): "名詞%F1/動詞%F1/形容詞%F1",
    ("動詞", "られる"): "動詞%F3@2",
    ("動詞", "れる"): "動詞%F3@1",
}
_MASHO = "動詞%F4@2/助詞%F2@2"  # the fall of ましょう lies one mora later than that of ます
_COUNTER = "C3"  # the NAIST dictionary has one type for all counters but foreign units


def with_open_jtalk_accents(words: Iterable[Word], dictionary_entries: Sequence[str]) -> list[Word]:
    """Copies of `words` with `chain_flag` (1: belongs to the phrase before) and `acc` (of a phrase's first word: the
    mora after which the pitch falls, 0 for none) set anew.

    `dictionary_entries` are the comma-separated morphemes of the same text, which still have each word's own accent.
    """
    words = list(words)
    own, listed = _own_accents(words, dictionary_entries)
    joined = [dict(word) | {"acc": accent} for word, accent in zip(words, own, strict=True)]
    head: Word = {}
    moras = 0  # of the phrase so far
    for place, word in enumerate(joined):
        before = joined[place - 1] if place else None
        after = joined[place + 1] if place + 1 < len(joined) else None
        # An entry of several words says itself how they join.
        if before is not None and (listed[place - 1] or listed[place] or word["pos_group1"] == "数"):
            word["chain_flag"] = 1 if _continues_phrase(before, word, after) else 0
        if before is None or word["chain_flag"] != 1:
            head, moras = word, 0
        else:
            head["acc"] = _combined(head["acc"], moras, word, own[place], before)
            if before["pos_group1"] == word["pos_group1"] == "数":
                _set_numeral_accent(before, word, after["string"] if after else "")
        if word["string"] == "十" and word["chain_flag"] != 1 and after is not None and after["pos_group1"] == "数":
            word["acc"] = 0
        moras += word["mora_size"]
    return joined


def _own_accents(words: Sequence[Word], entries: Sequence[str]) -> tuple[list[int], list[bool]]:
    """The accent of each word by itself, and whether an entry of the dictionary is that word.

    Numerals are respelled, and some entries are of several words: their accent stays as it is.
    """
    accents: list[int] = [word["acc"] for word in words]
    listed = [False] * len(words)
    surfaces = [entry.split(",", 1)[0] for entry in entries]
    matcher = difflib.SequenceMatcher(None, [word["string"] for word in words], surfaces, autojunk=False)
    for block in matcher.get_matching_blocks():
        for offset in range(block.size):
            listed[block.a + offset] = True
            fields = entries[block.b + offset].split(",")
            found = next((match for field in fields if (match := _ACCENT_AND_MORAS.match(field))), None)
            if found is not None and int(found[2]) == words[block.a + offset]["mora_size"]:
                accents[block.a + offset] = int(found[1])
    return accents, listed


def _continues_phrase(before: Word, word: Word, after: Word | None) -> bool:
    """Later rules overrule earlier ones, as in Open JTalk."""
    pos, group = word["pos"], word["pos_group1"]
    pos_before, group_before = before["pos"], before["pos_group1"]
    if group == "数":
        if word["string"] in _POWERS and before["string"] in _DIGITS:
            return True
        if (word["string"] in _DIGITS and before["string"] in _POWERS) or (after is not None and _is_counter(after)):
            return False
        if group_before == "数":
            return bool(word["chain_flag"] == 1)
    continues = True
    if pos == "名詞" and (pos_before in ("形容詞", "動詞") or group_before == "形容動詞語幹"):
        continues = False
    if pos == "形容詞" and pos_before == "動詞":
        continues = False
    if pos in _STANDING_ALONE or pos_before in _STANDING_ALONE:
        continues = False
    if "副詞可能" in (group if pos == "名詞" else "", group_before if pos_before == "名詞" else ""):
        continues = False
    if pos in _ATTACHED:
        continues = True
    elif pos_before in _ATTACHED or (group_before == "接尾" and pos == "名詞"):
        continues = False
    if group == "非自立":
        follows_stem = before["cform"].startswith("連用")
        follows_te = pos_before == "助詞" and group_before == "接続助詞" and before["string"] in ("て", "で")
        if pos == "形容詞" and ((pos_before in ("動詞", "形容詞") and follows_stem) or follows_te):
            continues = True
        if pos == "動詞" and pos_before == "動詞" and follows_stem:
            continues = True
    if pos_before == "名詞" and (pos in ("動詞", "形容詞") or group == "形容動詞語幹"):
        continues = False
    if "記号" in (pos, pos_before) or pos == "接頭詞":
        continues = False
    if (before["pos_group3"] == "姓" and pos == "名詞") or (pos_before == "名詞" and word["pos_group3"] == "名"):
        continues = False
    return continues or group == "接尾"


def _is_counter(word: Word) -> bool:
    return bool(word["pos_group1"] == "接尾" and word["pos_group2"] == "助数詞")


def _joining_rule(word: Word) -> str:
    if word["pos"] == "助動詞" and word["orig"] == "ます" and word["string"].startswith("ましょ"):
        return _MASHO
    if _is_counter(word) and not _KATAKANA.match(word["string"]):
        return _COUNTER
    return JOINING.get((word["pos"], word["orig"]), str(word["chain_rule"]))


def _combined(accent: int, moras: int, word: Word, own: int, before: Word) -> int:
    """The accent of a phrase of `moras` moras and accent `accent` after `word` (by itself `own`) has joined it."""
    kind, shift = _combination(_joining_rule(word), before["pos"])
    match kind:
        case "F2":
            return moras + shift if accent == 0 else accent
        case "F3":
            return moras + shift if accent != 0 else accent
        case "F4":
            return moras + shift
        case "F5" | "C4" | "P6":
            return 0
        case "C1":
            return moras + own
        case "C2":
            return moras + 1
        case "C3":
            return moras
        case "P1":
            return moras + own if own else 0
        case "P2":
            return moras + (own or 1)
        case "P14":
            return moras + own if own else accent
        case _:
            return accent


def _combination(rule: str, pos_before: str) -> tuple[str, int]:
    """`動詞%F2@1/名詞%F1`: after a verb F2 with shift 1, after a noun F1; a part without % holds after anything."""
    for part in rule.split("/"):
        pos, separator, body = part.rpartition("%")
        if not separator or pos in pos_before:
            kind, _, shift = body.partition("@")
            return kind, int(shift or 0)
    return "*", 0


def _set_numeral_accent(before: Word, word: Word, after: str) -> None:
    digit = before["string"]
    match word["string"]:
        case "十":
            before["acc"] = 0 if digit in ("五", "六", "八") and after in _DIGITS else 1
        case "百":
            if digit == "七":
                before["acc"] = 2
            else:
                falls_early = digit in ("三", "四", "九", "何")
                before["acc"] = 1 if falls_early else before["mora_size"] + word["mora_size"]
        case "千" | "万":
            before["acc"] = before["mora_size"] + 1
        case "億":
            before["acc"] = 2 if digit in ("一", "六", "七", "八", "幾") else 1
        case "兆":
            before["acc"] = 2 if digit in ("六", "七") else 1
