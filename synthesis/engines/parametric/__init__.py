"""The parametric engine: `from synthesis.engines.parametric import ParametricEngine`.

Loaded when it is asked for: the web process reads the table of languages and must not load a vocoder for that.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from synthesis.engines.parametric.engine import ENGINE_NAME, ParametricEngine

__all__ = ["ENGINE_NAME", "ParametricEngine"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("synthesis.engines.parametric.engine"), name)
