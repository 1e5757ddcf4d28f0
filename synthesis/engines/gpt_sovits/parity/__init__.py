"""Our numbers against upstream's: `python -m synthesis.engines.gpt_sovits.parity GOLDEN_DIR`."""
