"""What this installation can speak, without loading an engine: the web process asks here."""

from __future__ import annotations

from dataclasses import dataclass

from synthesis.contracts import AudioFormat
from synthesis.engines.base import EngineLanguage
from synthesis.engines.gpt_sovits.languages import LANGUAGES as GPT_SOVITS_LANGUAGES
from synthesis.engines.parametric.languages import LANGUAGES as PARAMETRIC_LANGUAGES


@dataclass(frozen=True, slots=True)
class EngineEntry:
    """One engine that jobs may run on."""

    name: str
    description: str
    languages: tuple[EngineLanguage, ...]
    formats: tuple[AudioFormat, ...] = tuple(AudioFormat)
    has_models: bool = False  # a voice may name one of several

    @property
    def language_codes(self) -> tuple[str, ...]:
        return tuple(language.code for language in self.languages)


_PARAMETRIC = EngineEntry(
    name="parametric",
    description="Gives the reference's pitch and timbre to a rule-based reading of the text. No model, no downloads.",
    languages=tuple(
        EngineLanguage(language.code, language.name, tested=language.tested)
        for language in PARAMETRIC_LANGUAGES.values()
    ),
)
_GPT_SOVITS = EngineEntry(
    name="gpt_sovits",
    description="Speaks like the reference, from a few seconds of it: a neural network with imported weights.",
    languages=GPT_SOVITS_LANGUAGES,
    has_models=True,
)
_ENGINES = {entry.name: entry for entry in (_PARAMETRIC, _GPT_SOVITS)}


def engine_entry(name: str) -> EngineEntry:
    """The entry of the engine that `settings.ENGINE` names. The fake engine of tests reads what `parametric` reads."""
    return _ENGINES.get(name, _PARAMETRIC)
