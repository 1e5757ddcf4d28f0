"""English to phones: ARPAbet with stresses. Rules: upstream's text/english.py."""

from __future__ import annotations

import re

from synthesis.engines.errors import UnspeakableTextError
from synthesis.engines.gpt_sovits.text.en_lexicon import EnglishLexicon, packaged_lexicon
from synthesis.engines.gpt_sovits.text.normalise_en import normalise
from synthesis.engines.gpt_sovits.text.origins import never_backwards
from synthesis.engines.gpt_sovits.text.phones import Phones
from synthesis.engines.gpt_sovits.text.symbols import UNKNOWN, SymbolTable
from synthesis.engines.gpt_sovits.text.tagger_en import Tagger, guess_tags
from synthesis.engines.mapped_text import MappedText, Span

# The tokens of NLTK's TweetTokenizer, of what a normalised text can hold: addresses, words with hyphens or apostrophes
# inside, other words, runs of full stops, single marks.
_TOKEN = re.compile(
    r"[A-Za-z]+(?:[.\-][A-Za-z]+)*\.[A-Za-z]{2,13}\b"
    r"|[A-Za-z][A-Za-z'\-]+[A-Za-z]"
    r"|[A-Za-z]+"
    r"|\.(?:\s*\.)+"
    r"|\S"
)
_LETTER = re.compile("[A-Za-z]")
_FEWEST_PHONES = 4  # upstream puts a pause before anything shorter


def read_english(
    text: MappedText, *, table: SymbolTable, tagger: Tagger | None = None, lexicon: EnglishLexicon | None = None
) -> Phones:
    """Phones, at least one of which is a sound or a pause; otherwise raises UnspeakableTextError.

    `tagger` gives each token its Penn Treebank tag (default: a few rules, see tagger_en.py); `lexicon` is by default
    that of the installed packages.
    """
    lexicon = lexicon or packaged_lexicon()
    normal = normalise(text)
    tokens = list(_TOKEN.finditer(normal.text))
    tags = (tagger or guess_tags)([token[0] for token in tokens])
    found: list[tuple[str, Span]] = []
    for token, tag in zip(tokens, tags, strict=True):
        phones = lexicon.pronounce(token[0], tag) if _LETTER.search(token[0]) else (token[0],)
        origin = normal.origin(*token.span())
        # What the second table lacks is dropped, whichever table the model has.
        found += [(symbol, origin) for phone in phones if (symbol := "-" if phone == "'" else phone) in SymbolTable.V2]
    if all(symbol == UNKNOWN for symbol, _ in found):
        raise UnspeakableTextError("The text holds nothing that can be said in English.")
    if len(found) < _FEWEST_PHONES:
        found.insert(0, (",", found[0][1]))
    symbols = tuple(symbol if symbol in table else UNKNOWN for symbol, _ in found)
    return Phones("en", normal.text, symbols, never_backwards(origin for _, origin in found))
