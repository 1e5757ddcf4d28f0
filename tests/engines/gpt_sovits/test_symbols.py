from __future__ import annotations

import json
from pathlib import Path

import pytest

from synthesis.engines.gpt_sovits.text.symbols import SymbolTable

GOLDEN = Path(__file__).parents[1] / "golden" / "open"


@pytest.mark.parametrize(("name", "size"), [("v1", 322), ("v2", 732)])
def test_each_table_is_the_published_models_own_in_its_order(name, size):
    wanted = json.loads((GOLDEN / "symbols.json").read_text(encoding="utf-8"))[name]
    assert SymbolTable.named(name).symbols == tuple(wanted)
    assert len(SymbolTable.named(name)) == size


def test_the_first_table_begins_the_second():
    assert SymbolTable.V2.symbols[: len(SymbolTable.V1)] == SymbolTable.V1.symbols


def test_a_symbol_that_is_not_in_the_table_is_unknown():
    unknown = SymbolTable.V1.symbols.index("UNK")
    assert SymbolTable.V1.ids(["!", "Yaa1", ""]) == [0, unknown, unknown]
    assert SymbolTable.V2.id_of("Yaa1") != SymbolTable.V2.id_of("UNK")
    assert "Yaa1" in SymbolTable.V2
    assert "Yaa1" not in SymbolTable.V1
