"""Worker process: upstream's own modules, from the copy of its checkout that is the working directory.

`python -m tests.benchmarks.engine.upstream JOB RESULT_FILE`, with the interpreter that has upstream's requirements.
Nothing of this project's engine is imported here. Packages that upstream imports but these measurements do not use may
be absent; importing them then costs upstream nothing.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.benchmarks.engine.workloads import (
    BATCHES,
    DECODE_PROMPT_CODES,
    PHONES,
    PHONES_PER_HANZI,
    PREFILL_BATCHES,
    PREFILL_PROMPT_CODES,
    REFERENCE_FRAMES,
    TRANSCRIPT,
    WAVE_CODES,
    WAVE_PHONES,
    Clock,
    Job,
    answer,
)

# Training, other versions, super-resolution, users' own containers: not part of what is measured.
_SPARE = (
    "ffmpeg",
    "matplotlib",
    "peft",
    "pytorch_lightning",
    "rotary_embedding_torch",
    "torchmetrics",
    "x_transformers",
)
_SAME = {"jieba_fast": "jieba"}  # the same words from the same dictionary; the first is quicker at cutting
_PRETRAINED = Path("GPT_SoVITS/pretrained_models")
_END_CODE = 1024
_VOICE_REPEATS = 2


class _SpareModule(ModuleType):
    """Gives a class of any name, which does nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        torch = importlib.import_module("torch")
        return type(name, (torch.nn.Module,), {"__init__": lambda self, *_, **__: torch.nn.Module.__init__(self)})


class _SpareFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Last on the path: asked only for what is not installed."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        top = name.split(".")[0]
        if top in _SPARE or name in _SAME:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        if spec.name in _SAME:
            return importlib.import_module(_SAME[spec.name])
        return _SpareModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is left to do."""


def _find_upstream() -> None:
    here = Path.cwd()
    sys.path[:0] = [str(here), str(here / "GPT_SoVITS")]
    sys.meta_path.append(_SpareFinder())


def measure_models(job: Job) -> Clock:
    _find_upstream()
    importlib.import_module("torch").set_num_threads(job.threads)
    clock = Clock()
    _measure_codes(job, clock)
    _measure_waves(job, clock)
    clock.note_peak_memory("peak bytes")
    return clock


def _measure_codes(job: Job, clock: Clock) -> None:
    torch: Any = importlib.import_module("torch")
    numbers = torch.Generator().manual_seed(1)
    t2s: Any = importlib.import_module("AR.models.t2s_model")
    checkpoint = torch.load(_PRETRAINED / "s1.ckpt", weights_only=False)
    decoder = t2s.Text2SemanticDecoder(checkpoint["config"]).eval()
    state = {key.removeprefix("model."): tensor for key, tensor in checkpoint["weight"].items()}
    decoder.load_state_dict(state)
    marks: list[tuple[float, float]] = []  # when each code was chosen
    choose = t2s.sample

    def choose_and_mark(logits: Any, *rest: Any, **options: Any) -> Any:
        marks.append((time.perf_counter(), time.process_time()))
        if logits.shape[-1] > _END_CODE:
            logits[:, _END_CODE] = float("-inf")
        return choose(logits, *rest, **options)

    t2s.sample = choose_and_mark
    t2s.tqdm = lambda steps: steps

    def run_codes(rows: int, prompt_codes: int, codes: int) -> tuple[float, float]:
        phones = [torch.randint(0, 732, (PHONES,), generator=numbers) for _ in range(rows)]
        bert = [torch.randn(1024, PHONES, generator=numbers) for _ in range(rows)]
        prompt = torch.randint(0, _END_CODE, (prompt_codes,), generator=numbers).expand(rows, -1)
        marks.clear()
        began = time.perf_counter(), time.process_time()
        with torch.inference_mode():
            decoder.infer_panel_batch_infer(
                phones,
                torch.tensor([PHONES] * rows),
                prompt,
                bert,
                top_k=15,
                top_p=1,
                temperature=1,
                repetition_penalty=1.35,
                early_stop_num=codes - 1,
                max_len=PHONES,
            )
        assert len(marks) == codes
        return began

    for rows in PREFILL_BATCHES:
        run_codes(rows, PREFILL_PROMPT_CODES, 1)
        wall, cpu = run_codes(rows, PREFILL_PROMPT_CODES, 1)
        clock.add(f"prefill b{rows}", marks[0][0] - wall, marks[0][1] - cpu)
    for rows in BATCHES:
        run_codes(rows, DECODE_PROMPT_CODES, 3)
        run_codes(rows, DECODE_PROMPT_CODES, job.decode_steps + 1)
        clock.add(f"codes b{rows}", marks[-1][0] - marks[0][0], marks[-1][1] - marks[0][1])


def _measure_waves(job: Job, clock: Clock) -> None:
    torch: Any = importlib.import_module("torch")
    numbers = torch.Generator().manual_seed(1)
    models: Any = importlib.import_module("module.models")
    load: Any = importlib.import_module("process_ckpt").load_sovits_new
    for version in job.versions:
        checkpoint = load(str(_PRETRAINED / f"s2{version}.pth"))
        sizes = {**checkpoint["config"]["model"], "version": version, "semantic_frame_rate": "25hz"}
        vits = models.SynthesizerTrn(1025, 32, n_speakers=300, **sizes)
        del vits.enc_q  # as upstream does with fine-tuned models
        missing, unexpected = vits.load_state_dict(checkpoint["weight"], strict=False)
        assert not missing, missing
        assert not unexpected, unexpected
        vits.eval()
        codes = torch.randint(0, 1024, (1, 1, WAVE_CODES), generator=numbers)
        phones = torch.randint(0, 732, (1, WAVE_PHONES), generator=numbers)
        spectrogram = torch.rand(1, 1025, REFERENCE_FRAMES, generator=numbers)
        vector = [torch.randn(1, 20480, generator=numbers)] if hasattr(vits, "sv_emb") else None
        with torch.inference_mode():
            vits.decode(codes[:, :, :25], phones, [spectrogram], sv_emb=vector)
            clock.time_calls(f"generator {version}", vits.dec)
            with clock.time(f"decode {version}"):
                vits.decode(codes, phones, [spectrogram], sv_emb=vector)


def measure_service(job: Job) -> Clock:
    _find_upstream()
    clock = Clock()
    with clock.time("import"):
        tts_module: Any = importlib.import_module("TTS_infer_pack.TTS")

    torch: Any = importlib.import_module("torch")
    torch.set_num_threads(job.threads)
    [version] = job.versions
    with clock.time("load"):
        tts = tts_module.TTS(
            tts_module.TTS_Config(
                {
                    "custom": {
                        "device": "cpu",
                        "is_half": False,
                        "version": version,
                        "t2s_weights_path": f"{_PRETRAINED}/s1.ckpt",
                        "vits_weights_path": f"{_PRETRAINED}/s2{version}.pth",
                        "cnhuhbert_base_path": f"{_PRETRAINED}/hubert",
                        "bert_base_path": f"{_PRETRAINED}/roberta",
                    }
                }
            )
        )
    clock.note_peak_memory("loaded peak bytes")
    soundfile: Any = importlib.import_module("soundfile")

    def read_clip(path: str) -> tuple[Any, int]:
        samples, rate = soundfile.read(path, dtype="float32")
        return torch.from_numpy(samples)[None], rate

    tts_module.torchaudio.load = read_clip  # torchaudio's own reader needs a system package
    clip = str(job.models / "clip.wav")

    def prepare() -> None:
        """All but the text front, whose data files this has no need of: the clip, the BERT features, the speaker."""
        tts.set_ref_audio(clip)
        tts.text_preprocessor.get_bert_feature(TRANSCRIPT, [PHONES_PER_HANZI] * len(TRANSCRIPT))
        _, audio = tts.prompt_cache["refer_spec"][0]
        if audio is not None:
            tts.sv_model.compute_embedding3(audio)

    with torch.inference_mode():
        with clock.time("first voice"):
            prepare()
        for _ in range(_VOICE_REPEATS):
            with clock.time("voice"):
                prepare()
    clock.note_peak_memory("voice peak bytes")
    return clock


def work(job: Job) -> Clock:
    return {"models": measure_models, "service": measure_service}[job.measure](job)


if __name__ == "__main__":
    answer(work)
