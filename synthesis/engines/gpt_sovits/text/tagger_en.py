"""Parts of speech of English words, which decide how words with two readings are said.

With the files of NLTK's averaged perceptron tagger at hand (`averaged_perceptron_tagger_eng.*.json`) tags are those
upstream uses. Without them a few rules tell verbs from nouns after the word before; all they have to get right is the
homographs.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from synthesis.engines.gpt_sovits.errors import ModelFileError

Tagger = Callable[[Sequence[str]], Sequence[str]]

_FILE_NAME = "averaged_perceptron_tagger_eng"
_BEFORE = ("-START-", "-START2-")
_BEHIND = ("-END-", "-END2-")

_VERB_FOLLOWS = {
    "to", "will", "would", "shall", "should", "can", "could", "may", "might", "must", "do", "does", "did", "don't",
    "doesn't", "didn't", "won't", "can't", "couldn't", "wouldn't", "shouldn't", "let", "please", "not", "never",
    "always", "i", "you", "we", "they", "who",
}  # fmt: skip
_NOUN_FOLLOWS = {
    "a", "an", "the", "this", "that", "these", "those", "my", "your", "his", "her", "its", "our", "their", "some",
    "any", "no", "every", "each", "of", "in", "on", "at", "for", "with", "by", "from", "is", "was", "are", "were", "be",
}  # fmt: skip
_PARTICIPLE_FOLLOWS = {"have", "has", "had", "having", "was", "were", "been", "being", "is", "are"}
_OBJECTS = {
    "a", "an", "the", "this", "that", "these", "those", "my", "your", "his", "her", "its", "our", "their", "me", "him",
    "them", "it", "us",
}  # fmt: skip
_PAST = {"yesterday", "ago", "last", "earlier"}


@dataclass(frozen=True)
class PerceptronTagger:
    """A tag's score is the sum of its weights over the features of a word's surroundings."""

    weights: dict[str, dict[str, float]]
    certain: dict[str, str]  # words with one tag only
    tags: Collection[str]

    @classmethod
    def load(cls, folder: Path) -> PerceptronTagger | None:
        """None if the files are not there. Raises ModelFileError if they cannot be read."""
        parts = []
        for part in ("weights", "tagdict", "classes"):
            places = (folder / f"{_FILE_NAME}.{part}.json", folder / _FILE_NAME / f"{_FILE_NAME}.{part}.json")
            path = next(filter(Path.is_file, places), None)
            if path is None:
                return None
            try:
                parts.append(json.loads(path.read_text(encoding="utf-8")))
            except ValueError as error:
                raise ModelFileError("The tagger's file is no JSON.", path=path.name) from error
        return cls(*parts)

    def __call__(self, words: Sequence[str]) -> list[str]:
        context = [*_BEFORE, *map(_folded, words), *_BEHIND]
        before, before_that = _BEFORE
        tags = []
        for place, word in enumerate(words):
            tag = self.certain.get(word) or self._best(_features(place + 2, word, context, before, before_that))
            tags.append(tag)
            before_that, before = before, tag
        return tags

    def _best(self, features: Iterator[str]) -> str:
        scores: dict[str, float] = defaultdict(float)
        for feature in features:
            for tag, weight in self.weights.get(feature, {}).items():
                scores[tag] += weight
        return max(self.tags, key=lambda tag: (scores[tag], tag))


def _folded(word: str) -> str:
    if "-" in word and not word.startswith("-"):
        return "!HYPHEN"
    if word.isdigit() and len(word) == 4:
        return "!YEAR"
    return "!DIGITS" if word[:1].isdigit() else word.lower()


def _features(place: int, word: str, context: Sequence[str], before: str, before_that: str) -> Iterator[str]:
    """Names of the features as NLTK's tagger was trained with them."""
    yield from ("bias", f"i suffix {word[-3:]}", f"i pref1 {word[:1]}", f"i-1 tag {before}", f"i-2 tag {before_that}")
    yield from (f"i tag+i-2 tag {before} {before_that}", f"i word {context[place]}")
    yield from (f"i-1 tag+i word {before} {context[place]}", f"i-1 word {context[place - 1]}")
    yield from (f"i-1 suffix {context[place - 1][-3:]}", f"i-2 word {context[place - 2]}")
    yield from (f"i+1 word {context[place + 1]}", f"i+1 suffix {context[place + 1][-3:]}")
    yield f"i+2 word {context[place + 2]}"


def guess_tags(words: Sequence[str]) -> list[str]:
    """NN for everything but words that stand where a verb stands."""
    lowered = [word.lower() for word in words]
    tags = []
    for place, word in enumerate(lowered):
        before = lowered[place - 1] if place else ""
        following = lowered[place + 1] if place + 1 < len(lowered) else ""
        is_first = not before or not before[-1].isalpha()
        if before in _PARTICIPLE_FOLLOWS and word == "read":
            tags.append("VBN")
        elif word == "read" and _PAST.intersection(lowered[place + 1 :]):
            tags.append("VBD")
        elif before in _NOUN_FOLLOWS:
            tags.append("NN")
        elif before in _VERB_FOLLOWS:
            tags.append("VB")
        else:
            tags.append("VB" if is_first and following in _OBJECTS else "NN")
    return tags
