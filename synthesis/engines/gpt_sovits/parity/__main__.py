"""Compare the engine with a folder of reference sets, one line per case.

    python -m synthesis.engines.gpt_sovits.parity GOLDEN_DIR

`name max_abs_err tolerance ok|FAIL|not-covered`. Exit status 1 on any FAIL, on an unreadable set, or when no set that
is covered was found. What a text set differs in is told on standard error.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from synthesis.engines.gpt_sovits.parity import features, semantic, text_alphabetic, text_mixed, text_zh, vits
from synthesis.engines.gpt_sovits.parity.report import Case, Checker, GoldenSet, worst

CHECKERS: dict[str, Checker] = {
    prefix: checker
    for area in (semantic, vits, features, text_zh, text_alphabetic, text_mixed)
    for prefix, checker in area.CHECKERS.items()
}


_TEXT = "text_"  # sets of sentences, one case each


def find_checker(name: str) -> Checker | None:
    """That of the longest prefix of the set's name."""
    return max(
        ((prefix, checker) for prefix, checker in CHECKERS.items() if name.startswith(prefix)),
        key=lambda entry: len(entry[0]),
        default=(None, None),
    )[1]


def check(golden: GoldenSet) -> Iterator[Case]:
    """The cases of one covered set; one that cannot be read or computed is a case that fails."""
    checker = find_checker(golden.name)
    assert checker is not None
    cases: list[Case] = []
    try:
        for case in checker(golden):
            cases.append(case)
            if not golden.name.startswith(_TEXT):
                yield case
    except Exception as error:  # whatever is wrong with a set, the others are still compared
        yield Case(golden.name, float("nan"), 0.0, f"{type(error).__name__}: {error}")
        return
    if not cases:
        yield Case(golden.name, float("nan"), 0.0, "the set holds no case")
    elif golden.name.startswith(_TEXT):
        yield worst(golden.name, cases)


def format_case(case: Case) -> str:
    verdict = "ok" if case.holds else "FAIL"
    return f"{case.name} {case.error:.3g} {case.tolerance:.3g} {verdict}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("golden_dir", type=Path)
    folder = parser.parse_args().golden_dir
    torch.set_grad_enabled(False)
    names = sorted(path.stem for path in folder.glob("*.json"))
    cases = failures = 0
    for name in names:
        if find_checker(name) is None:
            print(f"{name} - - not-covered")
            continue
        for case in check(GoldenSet(folder, name)):
            cases += 1
            failures += not case.holds
            print(format_case(case), flush=True)
            for line in case.note.splitlines():
                print(f"    {line}", file=sys.stderr)
    if not cases:
        print(f"No reference set that this engine covers in {folder}.", file=sys.stderr)
    return 1 if failures or not cases else 0


if __name__ == "__main__":
    sys.exit(main())
