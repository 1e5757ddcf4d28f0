"""One verdict over a set of sentences read aloud."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from difflib import SequenceMatcher

from synthesis.engines.gpt_sovits.parity.report import Case

SMALL_SET = 12  # below this many sentences one miss is allowed, whatever share it is

ReadSentence = tuple[str, Sequence[str], Sequence[str]]  # text, symbols found, symbols wanted


def text_case(
    name: str,
    items: Iterable[ReadSentence],
    *,
    phone_tolerance: float = 0.01,
    sentence_tolerance: float = 0.10,
    ignore: Collection[str] = frozenset(),
    causes: dict[str, str] | None = None,
) -> Case:
    """A Case that holds only if both rules hold: phones by edit distance, and sentences that are equal throughout.

    Its error is the share of differing phones; where only the rule for sentences is broken, the share of differing
    sentences. Symbols in `ignore` (accent marks) are left out on both sides. `causes` says why a text differs; the note
    lists every text that does.
    """
    sentences = [
        (text, [s for s in found if s not in ignore], [s for s in wanted if s not in ignore])
        for text, found, wanted in items
    ]
    if not sentences:
        return Case(name, float("inf"), 0.0, "no sentences")
    misses = [sentence for sentence in sentences if sentence[1] != sentence[2]]
    wanted_phones = sum(len(wanted) for _, _, wanted in sentences)
    wrong_phones = sum(edit_distance(found, wanted) for _, found, wanted in misses)
    phone_share = wrong_phones / max(wanted_phones, 1)
    sentence_share = len(misses) / len(sentences)
    allowed_misses = 1 if len(sentences) < SMALL_SET else int(sentence_tolerance * len(sentences))
    lines = [f"{wrong_phones}/{wanted_phones} phones and {len(misses)}/{len(sentences)} sentences differ"]
    for text, found, wanted in misses:
        cause = (causes or {}).get(text, "")
        lines.append(f"{text}: {_differences(found, wanted)}" + (f": {cause}" if cause else ""))
    note = "; ".join(lines)
    if phone_share <= phone_tolerance and len(misses) > allowed_misses:
        return Case(f"{name} (sentences)", sentence_share, allowed_misses / len(sentences), note)
    return Case(name, phone_share, phone_tolerance, note)


def edit_distance(found: Sequence[str], wanted: Sequence[str]) -> int:
    """Insertions, deletions and substitutions that turn one into the other (Levenshtein)."""
    row = list(range(len(wanted) + 1))
    for i, a in enumerate(found, start=1):
        previous, row = row, [i]
        for j, b in enumerate(wanted, start=1):
            row.append(min(previous[j] + 1, row[j - 1] + 1, previous[j - 1] + (a != b)))
    return row[-1]


def _differences(found: Sequence[str], wanted: Sequence[str]) -> str:
    blocks = SequenceMatcher(None, found, wanted, autojunk=False).get_opcodes()
    return ", ".join(
        f"{' '.join(found[a:b]) or 'nothing'} / {' '.join(wanted[c:d]) or 'nothing'}"
        for tag, a, b, c, d in blocks
        if tag != "equal"
    )
