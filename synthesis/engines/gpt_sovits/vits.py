"""The SoVITS decoder of v1, v2, v2Pro and v2ProPlus: semantic codes + phones + style -> a wave at 32 kHz.

    codes ---> codebook ---> encoder_ssl ---+
    phones --> embedding --> encoder_text --+--> MRTE --> encoder2 --> mean, scale --> + noise --> flow, backwards --> z
    references --> style encoder --> style -+   (and to flow and generator)        z --> generator --> wave

One utterance a call: B is 1 everywhere. Upstream puts the rows of a batch end to end and decodes them in one call, so
that they influence each other; here each is decoded alone. Nothing of an utterance stays on the modules. Names of
modules are those of upstream's state dict (module/models.py, SynthesizerTrn), so that a checkpoint loads strictly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from synthesis.engines.gpt_sovits.config import CODEBOOK_SIZE, VitsConfig
from synthesis.engines.gpt_sovits.errors import CheckpointMismatchError
from synthesis.engines.gpt_sovits.loading import Table, drop, fold_weight_norm, load_strictly

CONTENT_WIDTH = 768  # of HuBERT's features and of a codebook row
FRAMES_PER_CODE = 2  # 50 Hz frames of 640 samples
NOISE_SCALE = 0.5  # upstream's default of SynthesizerTrn.decode

# Keys of upstream's files that synthesis does not need, by prefix.
TRAINING_ONLY: Mapping[str, str] = {
    "enc_q.": "the posterior encoder hears the very wave that is to be made, which only training has",
    "quantizer.vq.layers.0._codebook.inited": "whether k-means has filled the codebook; it has",
    "quantizer.vq.layers.0._codebook.cluster_size": "running count that training updates the codebook by",
    "quantizer.vq.layers.0._codebook.embed_avg": "running sum that training updates the codebook by",
}

# Constants of upstream's constructors that no tensor and no configuration shows.
_MRTE_HEADS = 4  # module/mrte_model.py MRTE n_heads
_STYLE_HEADS = 2  # module/modules.py MelStyleEncoder style_head
_GENERATOR_SLOPE = 0.1  # module/modules.py LRELU_SLOPE
_LAST_SLOPE = 0.01  # the generator's last leaky_relu takes torch's default instead


@dataclass(frozen=True, slots=True)
class _Sizes:
    """What the tensors show."""

    symbols: int  # rows of the phone embedding
    width: int  # of the encoders
    filter_width: int  # of their feed-forward layers
    filter_kernel: int
    window: int  # frames to each side that have a relative position of their own
    speech_layers: int
    text_layers: int
    joint_layers: int
    mrte: int  # width of the cross attention, and of the style it is given
    latent: int  # channels of mean, scale and z
    style: int  # "gin": width of the style vector
    style_bins: int  # spectrogram bins the style encoder sees
    style_width: int
    style_kernel: int
    speaker: int  # width of the speaker vector; 0 without one
    flow_width: int
    flow_kernel: int
    flow_layers: int  # of one coupling
    couplings: int
    generator: int  # channels after conv_pre
    generator_kernel: int  # of conv_pre and conv_post

    @classmethod
    def read(cls, state: Mapping[str, Tensor], config: VitsConfig) -> _Sizes:
        def shape(key: str) -> tuple[int, ...]:
            if key not in state:
                raise CheckpointMismatchError(model="SoVITS decoder", missing=[key])
            return tuple(state[key].shape)

        def count(prefix: str) -> int:
            return len({key.removeprefix(prefix).split(".")[0] for key in state if key.startswith(prefix)})

        symbols, width = shape("enc_p.text_embedding.weight")
        filter_width, _, filter_kernel = shape("enc_p.encoder_text.ffn_layers.0.conv_1.weight")
        generator, latent, generator_kernel = shape("dec.conv_pre.weight")
        style_width, style_bins = shape("ref_enc.spectral.0.fc.weight")
        _, flow_width, flow_kernel = shape("flow.flows.0.enc.in_layers.0.weight")
        return cls(
            symbols=symbols,
            width=width,
            filter_width=filter_width,
            filter_kernel=filter_kernel,
            window=shape("enc_p.encoder_text.attn_layers.0.emb_rel_k")[1] // 2,
            speech_layers=count("enc_p.encoder_ssl.attn_layers."),
            text_layers=count("enc_p.encoder_text.attn_layers."),
            joint_layers=count("enc_p.encoder2.attn_layers."),
            mrte=shape("enc_p.mrte.c_pre.weight")[0],
            latent=latent,
            style=shape("ref_enc.fc.fc.weight")[0],
            style_bins=style_bins,
            style_width=style_width,
            style_kernel=shape("ref_enc.temporal.0.conv1.conv.weight")[2],
            speaker=shape("sv_emb.weight")[1] if config.version.has_speaker_vector else 0,
            flow_width=flow_width,
            flow_kernel=flow_kernel,
            flow_layers=count("flow.flows.0.enc.in_layers."),
            couplings=count("flow.flows."),
            generator=generator,
            generator_kernel=generator_kernel,
        )


class _ChannelNorm(nn.Module):
    """Layer norm over the channels of (1, C, T)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.empty(channels))
        self.beta = nn.Parameter(torch.empty(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.transpose(1, 2), self.gamma.shape, self.gamma, self.beta, eps=1e-5).transpose(1, 2)


def _split_heads(x: Tensor, heads: int) -> Tensor:
    """(1, C, T) -> (1, H, T, D)"""
    return x.view(x.shape[0], heads, -1, x.shape[2]).transpose(2, 3)


def _join_heads(x: Tensor) -> Tensor:
    """(1, H, T, D) -> (1, C, T)"""
    return x.transpose(2, 3).flatten(1, 2)


class _CrossAttention(nn.Module):
    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.conv_q = nn.Conv1d(channels, channels, 1)
        self.conv_k = nn.Conv1d(channels, channels, 1)
        self.conv_v = nn.Conv1d(channels, channels, 1)
        self.conv_o = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """x: (1, C, T) asks, y: (1, C, S) answers. Returns (1, C, T)."""
        q, k, v = (_split_heads(z, self.heads) for z in (self.conv_q(x), self.conv_k(y), self.conv_v(y)))
        attended: Tensor = self.conv_o(_join_heads(F.scaled_dot_product_attention(q, k, v)))
        return attended


class _RelativeAttention(nn.Module):
    """Self-attention with learnt relative positions up to `window` frames away (Shaw et al. 2018, arXiv 1803.02155)."""

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.conv_q = nn.Conv1d(channels, channels, 1)
        self.conv_k = nn.Conv1d(channels, channels, 1)
        self.conv_v = nn.Conv1d(channels, channels, 1)
        self.conv_o = nn.Conv1d(channels, channels, 1)
        self.emb_rel_k = nn.Parameter(torch.empty(1, 2 * window + 1, channels // heads))  # one for all heads
        self.emb_rel_v = nn.Parameter(torch.empty(1, 2 * window + 1, channels // heads))

    def forward(self, x: Tensor) -> Tensor:
        """x: (1, C, T). Returns (1, C, T)."""
        q, k, v = (_split_heads(conv(x), self.heads) for conv in (self.conv_q, self.conv_k, self.conv_v))
        q = q / math.sqrt(q.shape[-1])
        frames = x.shape[2]
        reach = min(self.window, frames - 1)

        scores = q @ k.transpose(2, 3)  # (1, H, T, T)
        near = q @ self.emb_rel_k[0].T  # (1, H, T, 2 window + 1)
        for away in range(-reach, reach + 1):  # the key `away` frames after the query: one diagonal of the scores
            asking = slice(max(0, -away), frames - max(0, away))
            scores.diagonal(away, 2, 3).add_(near[:, :, asking, away + self.window])
        weights = scores.softmax(dim=3)

        near = torch.zeros_like(near)
        for away in range(-reach, reach + 1):
            asking = slice(max(0, -away), frames - max(0, away))
            near[:, :, asking, away + self.window] = weights.diagonal(away, 2, 3)
        attended: Tensor = self.conv_o(_join_heads(weights @ v + near @ self.emb_rel_v[0]))
        return attended


class _FeedForward(nn.Module):
    def __init__(self, channels: int, filter_channels: int, kernel: int) -> None:
        super().__init__()
        self.padding = ((kernel - 1) // 2, kernel // 2)
        self.conv_1 = nn.Conv1d(channels, filter_channels, kernel)
        self.conv_2 = nn.Conv1d(filter_channels, channels, kernel)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_1(F.pad(x, self.padding)).relu_()
        transformed: Tensor = self.conv_2(F.pad(x, self.padding))
        return transformed


class _Encoder(nn.Module):
    """A transformer that normalises after each sublayer (upstream module/attentions.py Encoder)."""

    def __init__(self, sizes: _Sizes, heads: int, layers: int) -> None:
        super().__init__()
        width = sizes.width
        self.attn_layers = nn.ModuleList(_RelativeAttention(width, heads, sizes.window) for _ in range(layers))
        self.norm_layers_1 = nn.ModuleList(_ChannelNorm(width) for _ in range(layers))
        self.ffn_layers = nn.ModuleList(
            _FeedForward(width, sizes.filter_width, sizes.filter_kernel) for _ in range(layers)
        )
        self.norm_layers_2 = nn.ModuleList(_ChannelNorm(width) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        """x: (1, C, T). Returns (1, C, T)."""
        layers = zip(self.attn_layers, self.norm_layers_1, self.ffn_layers, self.norm_layers_2, strict=True)
        for attention, norm_1, feed_forward, norm_2 in layers:
            x = norm_1(x + attention(x))
            x = norm_2(x + feed_forward(x))
        return x


class _Mrte(nn.Module):
    """Multi-reference timbre encoder: speech asks text, style is added (upstream module/mrte_model.py)."""

    def __init__(self, sizes: _Sizes) -> None:
        super().__init__()
        self.cross_attention = _CrossAttention(sizes.mrte, _MRTE_HEADS)
        self.c_pre = nn.Conv1d(sizes.width, sizes.mrte, 1)
        self.text_pre = nn.Conv1d(sizes.width, sizes.mrte, 1)
        self.c_post = nn.Conv1d(sizes.mrte, sizes.width, 1)

    def forward(self, speech: Tensor, text: Tensor, style: Tensor) -> Tensor:
        """speech: (1, C, T), text: (1, C, S), style: (1, M, 1). Returns (1, C, T)."""
        speech = self.c_pre(speech)  # (1, M, T)
        mixed: Tensor = self.c_post(self.cross_attention(speech, self.text_pre(text)) + speech + style)
        return mixed


class _TextEncoder(nn.Module):
    """The prior: what is said, frame by frame (upstream module/models.py TextEncoder)."""

    def __init__(self, sizes: _Sizes, heads: int) -> None:
        super().__init__()
        self.ssl_proj = nn.Conv1d(CONTENT_WIDTH, sizes.width, 1)
        self.encoder_ssl = _Encoder(sizes, heads, sizes.speech_layers)
        self.text_embedding = Table("weight", sizes.symbols, sizes.width)
        self.encoder_text = _Encoder(sizes, heads, sizes.text_layers)
        self.mrte = _Mrte(sizes)
        self.encoder2 = _Encoder(sizes, heads, sizes.joint_layers)
        self.proj = nn.Conv1d(sizes.width, 2 * sizes.latent, 1)

    def text(self, phones: Tensor) -> Tensor:
        """phones: (S,) int64. Returns (1, C, S)."""
        encoded: Tensor = self.encoder_text(F.embedding(phones, self.text_embedding.get_parameter("weight")).T[None])
        return encoded

    def speech(self, content: Tensor, text: Tensor, style: Tensor) -> Tensor:
        """content: (1, 768, T), text: (1, C, S), style: (1, M, 1). Returns (1, C, T)."""
        x = self.encoder_ssl(self.ssl_proj(content))
        encoded: Tensor = self.encoder2(self.mrte(x, text, style))
        return encoded


class _GatedStack(nn.Module):
    """WaveNet's gated convolutions, told the style (upstream module/modules.py WN; dilation 1)."""

    def __init__(self, sizes: _Sizes) -> None:
        super().__init__()
        width, kernel, layers = sizes.flow_width, sizes.flow_kernel, sizes.flow_layers
        self.cond_layer = nn.Conv1d(sizes.style, 2 * width * layers, 1)
        self.in_layers = nn.ModuleList(
            nn.Conv1d(width, 2 * width, kernel, padding=(kernel - 1) // 2) for _ in range(layers)
        )
        self.res_skip_layers = nn.ModuleList(
            nn.Conv1d(width, width if last else 2 * width, 1) for last in [False] * (layers - 1) + [True]
        )

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """x: (1, C, T), style: (1, G, 1). Returns (1, C, T)."""
        told = self.cond_layer(style).chunk(len(self.in_layers), dim=1)  # each (1, 2 C, 1)
        skipped = torch.zeros_like(x)
        for gate, split, condition in zip(self.in_layers, self.res_skip_layers, told, strict=True):
            value, opening = (gate(x) + condition).chunk(2, dim=1)  # 2 x (1, C, T)
            out = split(value.tanh() * opening.sigmoid())
            if out.shape[1] > x.shape[1]:
                residual, out = out.chunk(2, dim=1)
                x = x + residual
            skipped += out
        return skipped


class _Coupling(nn.Module):
    """Shifts half of the channels by what the other half says (upstream module/modules.py ResidualCouplingLayer)."""

    def __init__(self, sizes: _Sizes) -> None:
        super().__init__()
        self.pre = nn.Conv1d(sizes.latent // 2, sizes.flow_width, 1)
        self.enc = _GatedStack(sizes)
        self.post = nn.Conv1d(sizes.flow_width, sizes.latent // 2, 1)

    def inverse(self, x: Tensor, style: Tensor) -> Tensor:
        kept, shifted = x.chunk(2, dim=1)
        return torch.cat([kept, shifted - self.post(self.enc(self.pre(kept), style))], dim=1)


class _Flow(nn.Module):
    """Couplings at even places, channel flips (no weights) at odd ones; synthesis walks them backwards."""

    def __init__(self, sizes: _Sizes) -> None:
        super().__init__()
        self.flows = nn.ModuleDict({str(2 * i): _Coupling(sizes) for i in range(sizes.couplings)})
        self.reach_frames = sizes.couplings * sizes.flow_layers * (sizes.flow_kernel // 2)

    def inverse(self, x: Tensor, style: Tensor) -> Tensor:
        """x: (1, L, T), style: (1, G, 1). Returns z (1, L, T); a frame depends on `reach_frames` to each side."""
        for coupling in reversed(list(self.flows.values())):
            assert isinstance(coupling, _Coupling)
            x = coupling.inverse(x.flip(1), style)
        return x


def _time_conv(channels_in: int, channels_out: int, kernel: int, dilation: int = 1, *, bias: bool = True) -> nn.Conv2d:
    """A convolution over time that keeps the length, as a 2-D one over a picture one row high."""
    padding = dilation * (kernel - 1) // 2
    return nn.Conv2d(channels_in, channels_out, (1, kernel), padding=(0, padding), dilation=(1, dilation), bias=bias)


class _ResBlock(nn.Module):
    """Three pairs of convolutions with residuals (HiFi-GAN, arXiv 2010.05646, ResBlock1)."""

    def __init__(self, channels: int, kernel: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(_time_conv(channels, channels, kernel, dilation) for dilation in dilations)
        self.convs2 = nn.ModuleList(_time_conv(channels, channels, kernel) for _ in dilations)
        self.reach_samples = sum((kernel // 2) * (dilation + 1) for dilation in dilations)

    def forward(self, x: Tensor) -> Tensor:
        """x: (1, C, 1, T), left unchanged. Returns the same shape."""
        for conv_1, conv_2 in zip(self.convs1, self.convs2, strict=True):
            y = F.leaky_relu_(conv_1(F.leaky_relu(x, _GENERATOR_SLOPE)), _GENERATOR_SLOPE)
            x = conv_2(y).add_(x)
        return x


class _Generator(nn.Module):
    """HiFi-GAN's generator: z -> wave.

    Time runs along the width of one-row pictures whose channels lie side by side in memory (channels last): oneDNN's
    convolutions are faster there than on (1, C, T), and much faster in bfloat16.
    """

    def __init__(self, sizes: _Sizes, config: VitsConfig) -> None:
        super().__init__()
        channels = sizes.generator
        self.conv_pre = _time_conv(sizes.latent, channels, sizes.generator_kernel)
        self.cond = nn.Conv2d(sizes.style, channels, 1)
        self.ups = nn.ModuleList()
        self.resblocks = nn.ModuleList()
        for rate, kernel in zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True):
            up = nn.ConvTranspose2d(
                channels, channels // 2, (1, kernel), stride=(1, rate), padding=(0, (kernel - rate) // 2)
            )
            self.ups.append(up)
            channels //= 2
            for size, dilations in zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True):
                self.resblocks.append(_ResBlock(channels, size, dilations))
        self.conv_post = _time_conv(channels, 1, sizes.generator_kernel, bias=False)
        self.blocks_per_stage = len(config.resblock_kernel_sizes)
        self.samples_per_frame = math.prod(config.upsample_rates)
        self.reach_frames = self._reach_frames(config, sizes.generator_kernel // 2)

    def forward(self, z: Tensor, style: Tensor) -> Tensor:
        """z: (1, L, T), style: (1, G, 1), float32. Returns (1, 1, N) float32, N = samples_per_frame * T.

        A sample depends on the z of its own frame and of `reach_frames` to each side.
        """
        dtype = self.conv_pre.weight.dtype
        x = z[:, :, None].to(dtype=dtype, memory_format=torch.channels_last)  # (1, L, 1, T)
        x = self.conv_pre(x) + self.cond(style[:, :, None].to(dtype))
        for stage, up in enumerate(self.ups):
            x = up(F.leaky_relu_(x, _GENERATOR_SLOPE))
            first = stage * self.blocks_per_stage
            blocks = self.resblocks[first : first + self.blocks_per_stage]
            total = blocks[0](x)
            for block in blocks[1:]:
                total += block(x)
            x = total.div_(self.blocks_per_stage)
        wave: Tensor = self.conv_post(F.leaky_relu_(x, _LAST_SLOPE))[:, :, 0].float().tanh_()
        return wave

    def _reach_frames(self, config: VitsConfig, post_reach: int) -> int:
        """How many frames of z to each side a frame's samples depend on, counted back from the wave."""
        reach = post_reach
        stages = list(zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True))
        for stage, (rate, kernel) in reversed(list(enumerate(stages))):
            blocks = self.resblocks[stage * self.blocks_per_stage : (stage + 1) * self.blocks_per_stage]
            reach += max(block.reach_samples for block in blocks if isinstance(block, _ResBlock))
            padding = (kernel - rate) // 2
            # Output t of a transposed convolution needs the inputs i with 0 <= t + padding - i * rate < kernel.
            reach = max((rate - 1 + reach + padding) // rate, (reach + kernel - 1 - padding) // rate)
        return reach + self.conv_pre.kernel_size[1] // 2


class _GatedConv(nn.Module):
    """Convolution, gate, residual (upstream module/modules.py Conv1dGLU)."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        conv = nn.Conv1d(channels, 2 * channels, kernel, padding=kernel // 2)
        self.conv1 = nn.ModuleDict({"conv": conv})

    def forward(self, x: Tensor) -> Tensor:
        gated: Tensor = x + F.glu(self.conv1["conv"](x), dim=1)
        return gated


class _StyleAttention(nn.Module):
    """Self-attention with its residual inside; scaled by the whole width, not by a head's (upstream's choice)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.w_qs = nn.Linear(width, width)
        self.w_ks = nn.Linear(width, width)
        self.w_vs = nn.Linear(width, width)
        self.fc = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """x: (1, F, C). Returns (1, F, C)."""
        q, k, v = (_split_heads(w(x).transpose(1, 2), _STYLE_HEADS) for w in (self.w_qs, self.w_ks, self.w_vs))
        attended = F.scaled_dot_product_attention(q, k, v, scale=x.shape[2] ** -0.5)  # (1, H, F, D)
        mixed: Tensor = x + self.fc(_join_heads(attended).transpose(1, 2))
        return mixed


class _StyleEncoder(nn.Module):
    """A reference's spectrogram -> one style vector (upstream module/modules.py MelStyleEncoder)."""

    def __init__(self, sizes: _Sizes) -> None:
        super().__init__()
        width = sizes.style_width
        self.bins = sizes.style_bins
        self.spectral = nn.ModuleDict(
            {
                "0": nn.ModuleDict({"fc": nn.Linear(self.bins, width)}),
                "3": nn.ModuleDict({"fc": nn.Linear(width, width)}),
            }
        )
        self.temporal = nn.ModuleList(_GatedConv(width, sizes.style_kernel) for _ in range(2))
        self.slf_attn = _StyleAttention(width)
        self.fc = nn.ModuleDict({"fc": nn.Linear(width, sizes.style)})

    def forward(self, reference: Tensor) -> Tensor:
        """reference: (bins, F) magnitudes. Returns (1, G, 1)."""
        x = reference[None, : self.bins].transpose(1, 2)  # (1, F, bins)
        for layer in self.spectral.values():
            assert isinstance(layer, nn.ModuleDict)
            x = F.mish(layer["fc"](x))
        x = x.transpose(1, 2)  # (1, C, F)
        for gated in self.temporal:
            x = gated(x)
        x = self.fc["fc"](self.slf_attn(x.transpose(1, 2)))  # (1, F, G)
        style: Tensor = x.mean(dim=1)[:, :, None]
        return style


class Vits(nn.Module):
    """The decoder, ready for inference. Make it with `from_state`; it is safe to share between threads."""

    def __init__(self, sizes: _Sizes, config: VitsConfig) -> None:
        super().__init__()
        self.config = config
        self.enc_p = _TextEncoder(sizes, config.heads)
        self.flow = _Flow(sizes)
        self.dec = _Generator(sizes, config)
        self.ref_enc = _StyleEncoder(sizes)
        self.ssl_proj = nn.Conv1d(CONTENT_WIDTH, CONTENT_WIDTH, FRAMES_PER_CODE, stride=FRAMES_PER_CODE)
        codebook = nn.ModuleDict({"_codebook": Table("embed", CODEBOOK_SIZE, CONTENT_WIDTH)})
        self.quantizer = nn.ModuleDict({"vq": nn.ModuleDict({"layers": nn.ModuleList([codebook])})})
        if config.version.has_speaker_vector:
            self.sv_emb = nn.Linear(sizes.speaker, sizes.style)
            self.ge_to512 = nn.Linear(sizes.style, sizes.mrte)
            self.prelu = nn.PReLU(sizes.style)

    @classmethod
    def from_state(
        cls,
        state: Mapping[str, Tensor],
        config: VitsConfig,
        *,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> Vits:
        """Build the decoder from a checkpoint's tensors (upstream's keys, any float dtype, either weight norm).

        `dtype` is that of the generator, which takes nine tenths of the time; the rest stays float32. float32 is the
        default until bfloat16 has been judged on trained weights: on random ones the RMS error is 1 % of the wave's
        RMS, at most 3 %.
        Raises CheckpointMismatchError where a key is missing, unknown (not in TRAINING_ONLY) or of another shape.
        """
        state = fold_weight_norm({key: tensor.float() for key, tensor in drop(state, TRAINING_ONLY).items()})
        with torch.device("meta"):
            vits = cls(_Sizes.read(state, config), config)
        load_strictly(vits, {key: _laid_out(key, tensor) for key, tensor in state.items()}, model="SoVITS decoder")
        vits.dec.to(dtype)
        return vits.to(device).eval().requires_grad_(False)

    @property
    def device(self) -> torch.device:
        return self.ssl_proj.weight.device

    @property
    def samples_per_frame(self) -> int:
        return self.dec.samples_per_frame

    @torch.inference_mode()
    def style(self, references: Sequence[Tensor], speaker_vectors: Sequence[Tensor] | None = None) -> Tensor:
        """The voice: the mean over its references' style vectors.

        references: each (1025, F) magnitudes of the 32 kHz spectrogram; speaker_vectors: as many, each (20480,), for
        v2Pro and v2ProPlus, None for the others. Returns (1, G, 1) float32.
        """
        assert references
        assert (speaker_vectors is not None) == self.config.version.has_speaker_vector
        styles = [self.ref_enc(reference.to(self.device, torch.float32)) for reference in references]
        if speaker_vectors is not None:
            vectors = [vector.to(self.device, torch.float32)[None] for vector in speaker_vectors]
            told = zip(styles, vectors, strict=True)
            styles = [self.prelu(style + self.sv_emb(vector)[:, :, None]) for style, vector in told]
        return torch.stack(styles).mean(dim=0)

    @torch.inference_mode()
    def quantise(self, content: Tensor) -> Tensor:
        """HuBERT's features of a clip, (1, 768, T) at 50 Hz, to its semantic codes (T // 2,) int64 at 25 Hz."""
        x = self.ssl_proj(content.to(self.device, torch.float32))[0].T  # (T // 2, 768)
        codebook = self._codebook  # (V, 768)
        squared_distance = codebook.square().sum(dim=1) - 2 * x @ codebook.T  # less x's own square: the same for all
        codes: Tensor = squared_distance.argmin(dim=1)
        return codes

    @torch.inference_mode()
    def encode_text(self, phones: Tensor) -> Tensor:
        """phones: (S,) int64. Returns (1, C, S): all that synthesis needs to know of them."""
        return self.enc_p.text(phones.to(self.device))

    @torch.inference_mode()
    def encode_speech(self, codes: Tensor, text: Tensor, style: Tensor) -> Tensor:
        """codes: (T,) int64, text: (1, C, S) of `encode_text`, style: (1, G, 1). Returns (1, C, 2 T): 50 Hz."""
        if self.config.version.has_speaker_vector:
            style = self.ge_to512(style[:, :, 0])[:, :, None]  # (1, M, 1)
        rows = F.embedding(codes.to(self.device), self._codebook)  # (T, 768)
        content = rows.repeat_interleave(FRAMES_PER_CODE, dim=0).T[None]  # (1, 768, 2 T)
        return self.enc_p.speech(content, text, style)

    @torch.inference_mode()
    def statistics(self, speech: Tensor) -> tuple[Tensor, Tensor]:
        """speech: (1, C, T), at its final speed. Returns mean and log scale of the prior, each (1, L, T)."""
        mean, log_scale = self.enc_p.proj(speech).chunk(2, dim=1)
        return mean, log_scale

    @torch.inference_mode()
    def encode(self, codes: Tensor, phones: Tensor, style: Tensor, speed: float = 1.0) -> tuple[Tensor, Tensor]:
        """codes: (T,), phones: (S,) int64, style: (1, G, 1). Returns mean and log scale, each (1, L, T').

        T' is 2 T at speed 1, else int(2 T / speed) + 1 (upstream's count).
        """
        speech = self.encode_speech(codes, self.encode_text(phones), style)
        if speed != 1.0:
            frames = frames_at_speed(speech.shape[2], speed)
            speech = stretch(speech, frames, speech.shape[2] / frames)
        return self.statistics(speech)

    @torch.inference_mode()
    def decode(
        self,
        codes: Tensor,
        phones: Tensor,
        style: Tensor,
        *,
        speed: float = 1.0,
        generator: torch.Generator,
        noise_scale: float = NOISE_SCALE,
    ) -> Tensor:
        """Say one utterance: codes (T,) and phones (S,) int64, style (1, G, 1) of `style`.

        Returns (N,) float32 at 32 kHz in -1..1 on the decoder's device; N = 1280 T at speed 1. Draws once from
        `generator`.
        """
        mean, log_scale = self.encode(codes, phones, style, speed)
        noise = draw_noise(mean.shape[1], mean.shape[2], generator).to(mean.device)
        z = self.flow.inverse(mean + noise * log_scale.exp() * noise_scale, style)
        wave: Tensor = self.dec(z, style)[0, 0]
        return wave

    @property
    def _codebook(self) -> Tensor:
        return self.quantizer.get_parameter("vq.layers.0._codebook.embed")


def frames_at_speed(frames: int, speed: float) -> int:
    """How many 50 Hz frames `frames` become (upstream TextEncoder.forward)."""
    return frames if speed == 1.0 else int(frames / speed) + 1


def stretch(x: Tensor, frames: int, step: float) -> Tensor:
    """Linear interpolation of x (1, C, T) at `frames` places `step` apart, as F.interpolate with align_corners=False.

    The step is an argument, not T / frames, because a stream does not know its T yet. Returns (1, C, frames).
    """
    places = ((torch.arange(frames, dtype=torch.float64) + 0.5) * step - 0.5).clamp(0, x.shape[2] - 1)
    before = places.long()
    after = (before + 1).clamp(max=x.shape[2] - 1)
    share = (places - before).to(x)
    return x[:, :, before.to(x.device)].lerp(x[:, :, after.to(x.device)], share)


def draw_noise(channels: int, frames: int, generator: torch.Generator) -> Tensor:
    """Standard normal (1, channels, frames), float32, on the generator's device; drawn frame after frame.

    So two draws of n and m frames from a CPU generator equal one of n + m wherever 16 divides the channels (torch draws
    in blocks of 16; published models have 192): a stream hears the noise that a whole decode hears.
    """
    return torch.randn(frames, channels, generator=generator, device=generator.device).T[None]


def _laid_out(key: str, tensor: Tensor) -> Tensor:
    """The generator's 1-D kernels (C, C', K) become 2-D ones (C, C', 1, K) with channels last."""
    if key.startswith("dec.") and tensor.ndim == 3:
        return tensor[:, :, None].contiguous(memory_format=torch.channels_last)
    return tensor
