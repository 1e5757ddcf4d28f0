"""What the neural engine speaks: a table that the web process reads, so without torch."""

from __future__ import annotations

from synthesis.engines.base import EngineLanguage

# Upstream's front ends. Version 1 of the models knows neither Cantonese nor Korean.
LANGUAGES = (
    EngineLanguage("en", "English", tested=True),
    EngineLanguage("ja", "Japanese", tested=True),
    EngineLanguage("ko", "Korean", tested=True),
    EngineLanguage("yue", "Chinese (Cantonese)", tested=True),
    EngineLanguage("zh", "Chinese (Mandarin)", tested=True),
)
LANGUAGES_V1 = tuple(language for language in LANGUAGES if language.code in ("en", "ja", "zh"))
