"""The neural engine: GPT-SoVITS inference of our own, with upstream's checkpoints."""
