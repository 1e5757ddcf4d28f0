"""How an English word that no dictionary has is probably said: the sequence-to-sequence network of g2p_en 2.1.0.

Its weights are read from the installed package as data; the package is never imported, for it would try to download.
One gated recurrent layer reads the letters, another writes at most 20 phones, greedily.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_LETTERS = {letter: index for index, letter in enumerate("abcdefghijklmnopqrstuvwxyz", start=3)}
_UNKNOWN_LETTER, _END_OF_WORD = 1, 2
_FIRST_PHONE, _LAST_PHONE = 2, 3
_MAX_PHONES = 20
_VOWELS = "AA AE AH AO AW AY"
# Row of the output layer -> phone; the first four are padding, unknown, begin and end.
PHONES = (
    "<pad>", "UNK", "<s>", "</s>",
    *(vowel + stress for vowel in _VOWELS.split() for stress in "012"), "B", "CH", "D", "DH",
    "EH0", "EH1", "EH2", "ER0", "ER1", "ER2", "EY0", "EY1", "EY2", "F", "G", "HH",
    "IH0", "IH1", "IH2", "IY0", "IY1", "IY2", "JH", "K", "L", "M", "N", "NG",
    "OW0", "OW1", "OW2", "OY0", "OY1", "OY2", "P", "R", "S", "SH", "T", "TH",
    "UH0", "UH1", "UH2", "UW", "UW0", "UW1", "UW2", "V", "W", "Y", "Z", "ZH",
)  # fmt: skip


@dataclass(frozen=True)
class SpellingNetwork:
    """E = 64 embedding, C = 128 hidden; the three gates reset, update, new lie one behind the other in 3C rows."""

    enc_emb: Floats  # (29, E)
    enc_w_ih: Floats  # (3C, E)
    enc_w_hh: Floats  # (3C, C)
    enc_b_ih: Floats  # (3C,)
    enc_b_hh: Floats  # (3C,)
    dec_emb: Floats  # (74, E)
    dec_w_ih: Floats  # (3C, E)
    dec_w_hh: Floats  # (3C, C)
    dec_b_ih: Floats  # (3C,)
    dec_b_hh: Floats  # (3C,)
    fc_w: Floats  # (74, C)
    fc_b: Floats  # (74,)

    @classmethod
    def load(cls, path: Path) -> SpellingNetwork:
        with np.load(path, allow_pickle=False) as arrays:
            return cls(**{field.name: arrays[field.name] for field in fields(cls)})

    def pronounce(self, word: str) -> list[str]:
        """Phones of a lower-case word; a letter outside a to z reads as unknown."""
        state = np.zeros(self.enc_w_hh.shape[1], np.float32)  # (C,)
        for letter in [*(_LETTERS.get(letter, _UNKNOWN_LETTER) for letter in word), _END_OF_WORD]:
            state = _step(self.enc_emb[letter], state, self.enc_w_ih, self.enc_w_hh, self.enc_b_ih, self.enc_b_hh)
        phones: list[str] = []
        phone = _FIRST_PHONE
        for _ in range(_MAX_PHONES):
            state = _step(self.dec_emb[phone], state, self.dec_w_ih, self.dec_w_hh, self.dec_b_ih, self.dec_b_hh)
            phone = int(np.argmax(self.fc_w @ state + self.fc_b))
            if phone == _LAST_PHONE:
                break
            phones.append(PHONES[phone])
        # Upstream drops these from what the network says.
        return [phone for phone in phones if phone not in ("<pad>", "<s>", "UW")]


def _step(x: Floats, state: Floats, w_ih: Floats, w_hh: Floats, b_ih: Floats, b_hh: Floats) -> Floats:
    """One step of a gated recurrent unit. x: (E,), state: (C,) -> (C,)."""
    size = len(state)
    from_input, from_state = w_ih @ x + b_ih, w_hh @ state + b_hh  # (3C,)
    gates = 1 / (1 + np.exp(-(from_input[: 2 * size] + from_state[: 2 * size])))
    reset, update = gates[:size], gates[size:]
    new = np.tanh(from_input[2 * size :] + reset * from_state[2 * size :])
    mixed: Floats = (1 - update) * new + update * state
    return mixed
