"""Errors of the neural engine. Each class has a stable `code`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from synthesis.engines.errors import EngineError


class ModelFileError(EngineError):
    """A model file is missing, damaged, incomplete or not what its place asks for."""

    code = "model_file_invalid"


class HostileCheckpointError(ModelFileError):
    """A checkpoint asks for code to run, or claims more data than it holds. Nothing of it was executed."""

    code = "model_file_hostile"


class UnsupportedModelVersionError(EngineError):
    """The weights are of a model version that this engine does not speak with yet."""

    code = "unsupported_model_version"


class IncompatibleModelError(EngineError):
    """Two sound files that do not belong together."""

    code = "model_parts_incompatible"


class ModelNotFoundError(EngineError):
    """No model of this name (or no default one) under the model path."""

    code = "model_not_found"


class ModelUnavailableError(EngineError):
    """A model could not be loaded. Why is for the operator's log: the reason names files of the machine."""

    code = "model_unavailable"

    def __init__(self) -> None:
        super().__init__("The model of this voice cannot be loaded at the moment.")


class ModelExistsError(EngineError):
    """A model of this name is there already and its replacement was not asked for."""

    code = "model_exists"


class CheckpointMismatchError(ModelFileError):
    """A checkpoint's tensors are not those of the network it is loaded into."""

    code = "checkpoint_mismatch"

    def __init__(
        self,
        *,
        model: str,
        missing: Sequence[str] = (),
        unexpected: Sequence[str] = (),
        misshapen: Mapping[str, tuple[Sequence[int], Sequence[int]]] | None = None,
    ) -> None:
        """`misshapen`: from key to the shape found and the shape wanted."""
        wrong = {
            key: f"{tuple(found)} instead of {tuple(wanted)}" for key, (found, wanted) in (misshapen or {}).items()
        }
        parts = [
            f"{len(items)} {what} ({', '.join(list(items)[:3])}{', ...' if len(items) > 3 else ''})"
            for what, items in (
                ("missing", missing),
                ("unexpected", unexpected),
                ("of another shape", [f"{key}: {shapes}" for key, shapes in wrong.items()]),
            )
            if items
        ]
        super().__init__(
            f"The checkpoint does not fit the {model}: {'; '.join(parts)}.",
            model=model,
            missing=list(missing),
            unexpected=list(unexpected),
            misshapen=wrong,
        )


class UnsupportedModelError(EngineError):
    """The network's configuration asks for a variant that this engine does not compute."""

    code = "unsupported_model"

    def __init__(self, model: str, *, option: str, found: object, wanted: object) -> None:
        super().__init__(
            f"The {model} has {option} = {found!r}; only {wanted!r} is supported.",
            model=model,
            option=option,
            found=str(found),
            wanted=str(wanted),
        )


class GarbledSpeechError(EngineError):
    """A segment came out wrong in every attempt: it did not end, repeated itself, lost words or fell silent."""

    code = "garbled_speech"

    def __init__(self, defect: str) -> None:
        super().__init__(
            "The model did not manage to say a part of the text. Another seed, or shorter sentences, may help.",
            defect=str(defect),
        )


class InvalidSamplingError(EngineError):
    """A sampling option outside its range."""

    code = "invalid_sampling"

    def __init__(self, option: str, value: float) -> None:
        super().__init__(f"The sampling option {option} cannot be {value!r}.", option=option, value=str(value))


class InvalidSemanticRowError(EngineError):
    """Phones, features or codes that the text-to-semantic model cannot take."""

    code = "invalid_semantic_row"


class SegmentTooLongError(EngineError):
    """A segment's phones, prompt and codes together need more positions than the decoder holds for a row."""

    code = "segment_too_long"

    def __init__(self, *, needed: int, available: int) -> None:
        super().__init__(
            f"The segment needs {needed} positions, the decoder has {available}.", needed=needed, available=available
        )


class DecoderFullError(EngineError):
    """More rows than the decoder has places for; one that leaves makes room."""

    code = "decoder_full"
    retryable = True

    def __init__(self, *, wanted: int, free: int) -> None:
        super().__init__(f"{wanted} rows want to join, {free} places are free.", wanted=wanted, free=free)


class DownloadError(EngineError):
    """A published file could not be fetched, or is not what its host announced."""

    code = "download_failed"
    retryable = True


class NetworkUnavailableError(DownloadError):
    """The host of a published file cannot be reached at all."""

    code = "network_unavailable"
