"""The files that upstream and its sources publish: names, places, sizes, and where they go under MODEL_PATH."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from urllib.parse import quote

from synthesis.engines.gpt_sovits.config import ModelVersion
from synthesis.engines.gpt_sovits.weights import CheckpointKind

HUGGING_FACE = "https://huggingface.co"
GITHUB = "https://raw.githubusercontent.com"
FASTTEXT = "https://dl.fbaipublicfiles.com"

_MODELS = "lj1995/GPT-SoVITS/resolve/main"
_ARCHIVES = "XXXXRT/GPT-SoVITS-Pretrained/resolve/main"
_UPSTREAM_TEXT = "RVC-Boss/GPT-SoVITS/48b1a0169a28582a8984402f82cf438d3bfa6aca/GPT_SoVITS/text"
_NLTK = "nltk/nltk_data/gh-pages/packages"


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """`target`: below MODEL_PATH/text for text data (a folder for an archive), else below the download folder."""

    host: str
    path: str
    megabytes: float  # about; the host's own figure is what counts
    target: str
    suffixes: tuple[str, ...] = ()  # what is taken out of a zip archive; none: this is no archive
    digest: str = ""  # "git:" and the blob's id, where the place names one content for ever

    def url(self, mirror: str = HUGGING_FACE) -> str:
        """`mirror` stands in for Hugging Face; the other hosts have none."""
        return f"{mirror.rstrip('/') if self.host == HUGGING_FACE else self.host}/{quote(self.path)}"

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[-1]


def _model(path: str, megabytes: float) -> PublishedFile:
    return PublishedFile(HUGGING_FACE, f"{_MODELS}/{path}", megabytes, target=path)


def _upstream_text(path: str, megabytes: float, blob: str) -> PublishedFile:
    return PublishedFile(GITHUB, f"{_UPSTREAM_TEXT}/{path}", megabytes, path.rsplit("/", 1)[-1], digest=f"git:{blob}")


_V1_SEMANTIC = _model("s1bert25hz-2kh-longer-epoch=68e-step=50232.ckpt", 155)
_V2_SEMANTIC = _model("gsv-v2final-pretrained/s1bert25hz-5kh-longer-epoch=12-step=369668.ckpt", 155)
_PRO_SEMANTIC = _model("s1v3.ckpt", 155)

VOICE_FILES = MappingProxyType(
    {
        ModelVersion.V1: (_V1_SEMANTIC, _model("s2G488k.pth", 106)),
        ModelVersion.V2: (_V2_SEMANTIC, _model("gsv-v2final-pretrained/s2G2333k.pth", 106)),
        ModelVersion.V2_PRO: (_PRO_SEMANTIC, _model("v2Pro/s2Gv2Pro.pth", 160)),
        ModelVersion.V2_PRO_PLUS: (_PRO_SEMANTIC, _model("v2Pro/s2Gv2ProPlus.pth", 200)),
    }
)

EXTRACTOR_FILES = MappingProxyType(
    {
        CheckpointKind.CONTENT: (
            _model("chinese-hubert-base/config.json", 0.01),
            _model("chinese-hubert-base/pytorch_model.bin", 189),
        ),
        CheckpointKind.BERT: (
            _model("chinese-roberta-wwm-ext-large/config.json", 0.01),
            _model("chinese-roberta-wwm-ext-large/tokenizer.json", 0.3),
            _model("chinese-roberta-wwm-ext-large/pytorch_model.bin", 651),
        ),
        CheckpointKind.SPEAKER: (_model("sv/pretrained_eres2netv2w24s4ep4.ckpt", 108),),
    }
)

# Optional: each brings one text front end closer to upstream's. Targets are the names that
# `text.reading.TextData.load` looks for.
TEXT_FILES = (
    PublishedFile(  # the network that tells Chinese polyphones by their sentence
        HUGGING_FACE, f"{_ARCHIVES}/G2PWModel.zip", 560, "g2pw", suffixes=(".onnx", ".txt", ".json")
    ),
    _upstream_text("g2pw/polyphonic.rep", 0.01, "cb4ef9790b87631d3d39af48b1500341e6a052cf"),
    _upstream_text("g2pw/polyphonic-fix.rep", 1.7, "51ebc1452bd0d5968cd65310e91c6b2cc84270c4"),
    _upstream_text("cmudict.rep", 3.7, "eb4ee9e4c837e23580593929ae04abb37c100e39"),
    _upstream_text("cmudict-fast.rep", 3.6, "ec1564a87ea73e92c254c7883b410bcc5fca6e26"),
    _upstream_text("engdict-hot.rep", 0.01, "b926830366cad682405ff6c91f05f89792376951"),
    _upstream_text("namedict_cache.pickle", 0.8, "a9a9dc3986ad88d93685c63643248e6234d5c011"),  # read as plain values
    PublishedFile(
        GITHUB,
        f"{_NLTK}/taggers/averaged_perceptron_tagger_eng.zip",
        1.5,
        "averaged_perceptron_tagger_eng",
        suffixes=(".json",),
    ),
    PublishedFile(FASTTEXT, "fasttext/supervised-models/lid.176.bin", 126, "lid.176.bin"),
)


def extractors_of(version: ModelVersion) -> tuple[CheckpointKind, ...]:
    """What a model of this version needs beside its own two files."""
    always = (CheckpointKind.CONTENT, CheckpointKind.BERT)
    return (*always, CheckpointKind.SPEAKER) if version.has_speaker_vector else always
