"""Worker process: this project's engine. `python -m tests.benchmarks.engine.ours JOB RESULT_FILE`"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from tests.benchmarks.engine.workloads import (
    BATCHES,
    DECODE_PROMPT_CODES,
    FIRST_CHUNK_CODES,
    PHONES,
    PREFILL_BATCHES,
    PREFILL_PROMPT_CODES,
    REFERENCE_FRAMES,
    TEXT,
    TRANSCRIPT,
    WAVE_CODES,
    WAVE_PHONES,
    Clock,
    Job,
    answer,
)

_VOICE_REPEATS = 2
_FIRST_CHUNK_SAMPLES = (2 * FIRST_CHUNK_CODES - 12) * 640  # of 25 codes, less the frames that a stream holds back
_BYTES_READ = 320 << 20  # a working set that fits no cache
_PRODUCT_SIDE = 1024
_BEST_OF = 40  # each is short, so that some are undisturbed even on a busy machine


def measure_models(job: Job) -> Clock:
    """Text-to-semantic steps and the decoder by themselves."""
    import torch

    from synthesis.engines.gpt_sovits.library import Precision

    torch.set_num_threads(job.threads)
    clock = Clock()
    placed = {"device": torch.device("cpu"), "dtype": Precision(job.contender).dtype}
    _measure_codes(job, clock, placed)
    _measure_waves(job, clock, placed)
    clock.note_peak_memory("peak bytes")
    return clock


def _measure_codes(job: Job, clock: Clock, placed: dict[str, Any]) -> None:
    import torch

    from synthesis.engines.gpt_sovits.model_folder import choose_model, read_tensors
    from synthesis.engines.gpt_sovits.sampling import SamplingOptions
    from synthesis.engines.gpt_sovits.semantic import DecodeBatch, SemanticDecoder, SemanticRow

    files = choose_model(job.models / "ours", job.versions[0].lower())
    decoder = SemanticDecoder.from_state(read_tensors(files.semantic), files.semantic_config, **placed)
    numbers = torch.Generator().manual_seed(1)

    def batch_of(rows: int, prompt_codes: int, codes: int) -> tuple[DecodeBatch, list[SemanticRow]]:
        joining = [
            SemanticRow(
                phones=torch.randint(0, decoder.config.phones, (PHONES,), generator=numbers),
                bert=torch.randn(1024, PHONES, generator=numbers),
                prompt=torch.randint(0, decoder.config.end_code, (prompt_codes,), generator=numbers),
                sampling=SamplingOptions(),
                generator=torch.Generator().manual_seed(row),
                max_codes=codes,
                min_codes=codes + 1,
            )
            for row in range(rows)
        ]
        return DecodeBatch(decoder, rows=rows, positions=joining[0].positions), joining

    def run_codes(rows: int, steps: int, name: str) -> None:
        batch, joining = batch_of(rows, DECODE_PROMPT_CODES, steps + 1)
        batch.admit(joining)
        batch.step()  # chooses from the prefill's logits
        with clock.time(name):
            for _ in range(steps):
                batch.step()

    for rows in PREFILL_BATCHES:
        for is_warm in (False, True):
            batch, joining = batch_of(rows, PREFILL_PROMPT_CODES, 1)
            with clock.time(f"prefill b{rows}" if is_warm else "warm-up"):
                batch.admit(joining)
    for rows in BATCHES:
        run_codes(rows, 2, "warm-up")
        run_codes(rows, job.decode_steps, f"codes b{rows}")


def _measure_waves(job: Job, clock: Clock, placed: dict[str, Any]) -> None:
    import torch

    from synthesis.engines.gpt_sovits.model_folder import choose_model, read_tensors
    from synthesis.engines.gpt_sovits.vits import Vits

    numbers = torch.Generator().manual_seed(1)
    for version in job.versions:
        files = choose_model(job.models / "ours", version.lower())
        vits = Vits.from_state(read_tensors(files.vits), files.vits_config, **placed)
        codes = torch.randint(0, 1024, (WAVE_CODES,), generator=numbers)
        phones = torch.randint(0, 732, (WAVE_PHONES,), generator=numbers)
        spectrogram = torch.rand(1025, REFERENCE_FRAMES, generator=numbers)
        vectors = [torch.randn(20480, generator=numbers)] if vits.config.version.has_speaker_vector else None
        style = vits.style([spectrogram], vectors)
        noise = torch.Generator().manual_seed(0)
        vits.decode(codes[:25], phones, style, generator=noise)
        clock.time_calls(f"generator {version}", vits.dec)
        with clock.time(f"decode {version}"):
            vits.decode(codes, phones, style, generator=noise)


def measure_service(job: Job) -> Clock:
    """From an empty process to the first sound: import, load, learn a voice, speak."""
    clock = Clock()
    with clock.time("import"):
        from synthesis.engines.gpt_sovits.library import Library, Precision

    import torch

    torch.set_num_threads(job.threads)
    [version] = job.versions
    with clock.time("load"):
        library = Library(
            job.models / "ours",
            default_model=version.lower(),
            device="cpu",
            precision=Precision(job.contender),
        )
        engine = library.open()
    clock.note_peak_memory("loaded peak bytes")

    import soundfile

    from synthesis.engines.base import ReferenceAudio, SynthesisOptions
    from synthesis.engines.errors import EngineError

    samples, rate = soundfile.read(job.models / "clip.wav", dtype="float32")
    clip = ReferenceAudio(samples=samples, sample_rate_hz=rate, language="zh", transcript=TRANSCRIPT)
    with clock.time("first voice"):
        voice = engine.prepare_voice([clip])
    for _ in range(_VOICE_REPEATS):
        with clock.time("voice"):
            engine.prepare_voice([clip])
    clock.note_peak_memory("voice peak bytes")

    for seed in range(100):  # an untrained model may end an utterance at any code
        wall, cpu = time.perf_counter(), time.process_time()
        chunks = engine.synthesize(
            TEXT, language="zh", voice=voice, options=SynthesisOptions(seed=seed, is_urgent=True)
        )
        try:
            first = next(chunks)
        except EngineError:
            continue
        spent = time.perf_counter() - wall, time.process_time() - cpu
        chunks.close()  # type: ignore[attr-defined]
        if len(first.samples) == _FIRST_CHUNK_SAMPLES:
            clock.add("first chunk" if "first urgent chunk" in clock.samples else "first urgent chunk", *spent)
        if len(clock.samples.get("first chunk", [])) == _VOICE_REPEATS:
            break
    clock.note_peak_memory("spoken peak bytes")
    library.close()
    return clock


def measure_machine(job: Job) -> Clock:
    """What memory and arithmetic give at best, from the same torch: the floors' rates, and the import of torch."""
    clock = Clock()
    with clock.time("import torch"):
        import torch
    torch.set_num_threads(job.threads)

    def best(work: Callable[[], object]) -> float:
        work()
        seconds = []
        for _ in range(_BEST_OF):
            began = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - began)
        return min(seconds)

    with torch.inference_mode():
        matrix = torch.ones(_BYTES_READ // 4 // 2048, 2048)
        column = torch.ones(2048)
        clock.figures["bytes a second"] = _BYTES_READ / min(best(lambda: matrix @ column), best(matrix.sum))
        for name, dtype in {"fp32": torch.float32, "bf16": torch.bfloat16}.items():
            square = torch.randn(_PRODUCT_SIDE, _PRODUCT_SIDE).to(dtype)
            clock.figures[f"{name} MAC a second"] = _PRODUCT_SIDE**3 / best(partial(torch.matmul, square, square))
    return clock


def count_operations(job: Job) -> Clock:
    """Multiply-accumulates of one generator run, one decode and one preparation, counted by torch itself."""
    import soundfile
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from synthesis.engines.base import ReferenceAudio
    from synthesis.engines.gpt_sovits.library import Library
    from synthesis.engines.gpt_sovits.model_folder import choose_model, read_tensors
    from synthesis.engines.gpt_sovits.vits import Vits

    torch.set_num_threads(job.threads)
    clock = Clock()
    samples, rate = soundfile.read(job.models / "clip.wav", dtype="float32")
    clip = ReferenceAudio(samples=samples, sample_rate_hz=rate, language="zh", transcript=TRANSCRIPT)

    for version in job.versions:
        library = Library(job.models / "ours", default_model=version.lower(), device="cpu")
        engine = library.open()
        counter = FlopCounterMode(display=False)
        with counter:
            voice = engine.prepare_voice([clip])
        clock.figures[f"voice {version}"] = counter.get_total_flops() / 2
        library.close()

        files = choose_model(job.models / "ours", version.lower())
        vits = Vits.from_state(read_tensors(files.vits), files.vits_config, device=torch.device("cpu"))
        style = torch.from_numpy(voice.arrays["style"])
        codes, phones = torch.zeros(WAVE_CODES, dtype=torch.int64), torch.zeros(WAVE_PHONES, dtype=torch.int64)
        counted: list[int] = []  # when the generator begins, and when it ends
        counter = FlopCounterMode(display=False)
        note = partial(_note_operations, counter, counted)
        vits.dec.register_forward_pre_hook(note)
        vits.dec.register_forward_hook(note)
        with counter:
            vits.decode(codes, phones, style, generator=torch.Generator().manual_seed(0))
        clock.figures[f"decode {version}"] = counter.get_total_flops() / 2
        clock.figures[f"generator {version}"] = (counted[1] - counted[0]) / 2
    return clock


def _note_operations(counter: Any, counted: list[int], *_: object) -> None:
    counted.append(counter.get_total_flops())


def work(job: Job) -> Clock:
    return {
        "models": measure_models,
        "service": measure_service,
        "machine": measure_machine,
        "operations": count_operations,
    }[job.measure](job)


if __name__ == "__main__":
    answer(work)
