"""One utterance's wave while its codes still arrive.

The encoder hears all codes at once, so what it says of a frame changes as more codes come. What has been heard cannot
change. So a stream keeps one sequence of encoder outputs: each push encodes all codes so far, takes over the frames
that are new, cross-fades the last few of those before, and leaves the older ones as they are. Flow and generator are
convolutions: run over a window of that sequence with `reach_frames` to its left, they give the samples that they give
over the whole of it. So the samples sent are consecutive pieces of one wave: lengths add up exactly, no code is said
twice, and no search for a fitting joint (SOLA) is needed.

To the right the reach cannot be waited for (the flow alone looks 0.64 s ahead). HELD_FRAMES are held back instead, one
more than the generator looks ahead; what the flow still changes (a thousandth of full scale at most, measured on random
weights) is faded over the first _FADED_FRAMES of the next piece, the last piece included.

Upstream (TTS.run, streaming modes 2 and 3) does otherwise. It renders each chunk without its past, joins chunks by
SOLA, which shifts them by up to 10 ms, and the last one not at all; mode 2 says some codes twice; and it fades encoder
outputs with a sine and a cosine, which makes frames that agree up to 3 dB louder. Here the two weights sum to 1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from synthesis.engines.gpt_sovits.vits import NOISE_SCALE, Vits, draw_noise, frames_at_speed, stretch

HELD_FRAMES = 12  # 0.24 s, 6 codes
_BLENDED_FRAMES = 4  # of encoder outputs: 2 codes, upstream's overlap_length
_FADED_FRAMES = 4


class VitsStream:
    """The state of one utterance: make one for each and use it from one thread. The decoder stays as it is."""

    def __init__(
        self,
        vits: Vits,
        phones: Tensor,
        style: Tensor,
        *,
        speed: float = 1.0,
        generator: torch.Generator,
        noise_scale: float = NOISE_SCALE,
    ) -> None:
        """phones: (S,) int64, style: (1, G, 1) of `Vits.style`. `generator` draws each frame's noise once, in order."""
        self._vits = vits
        self._style = style
        self._speed = speed
        self._generator = generator
        self._noise_scale = noise_scale
        self._text = vits.encode_text(phones)  # (1, C, S)
        self._codes = torch.empty(0, dtype=torch.int64, device=vits.device)
        self._speech = torch.empty(1, 0, 0, device=vits.device)  # (1, C, T) 50 Hz: encoder outputs, speed 1
        self._noise = torch.empty(1, 0, 0, device=vits.device)  # (1, L, T') 50 Hz, at the final speed
        self._tail = torch.empty(0, device=vits.device)  # (N,): what the piece before knew of the next one's beginning
        self._sent_frames = 0
        self._ended = False

    @property
    def sent_samples(self) -> int:
        """How many samples the pushes have returned so far."""
        return self._sent_frames * self._vits.samples_per_frame

    @torch.inference_mode()
    def push(self, codes: Tensor, *, is_last: bool) -> Tensor:
        """Take the next codes, (T,) int64 with T >= 0. Returns the samples that are final by now, (N,) float32, N >= 0.

        All is final but the last HELD_FRAMES (at speeds under 1 as much of the codes: 0.24 s / speed); with `is_last`
        all is, and the pushes have then returned exactly as many samples as `Vits.decode` makes of the same codes.
        Codes that come in a single push give the samples of `Vits.decode`. A piece costs the encoder for all codes so
        far (cheap), flow and generator for its own frames and a constant number more.
        """
        assert not self._ended, "the last codes were pushed before"
        self._ended = is_last
        came_whole = is_last and not len(self._codes)
        self._codes = torch.cat([self._codes, codes.to(self._codes)])
        if not len(self._codes):
            return self._tail
        self._encode()
        heard = self._speech.shape[2]
        if is_last:
            total = final = frames_at_speed(heard, self._speed)
        else:
            total = int(heard / self._speed)
            final = max(self._sent_frames, total - math.ceil(HELD_FRAMES * max(1.0, 1 / self._speed)))
        if final == self._sent_frames:
            return self._tail[:0]
        # How many frames the whole is, is not known before its end: a stream steps by `speed` itself.
        samples = self._render(total, step=heard / total if came_whole else self._speed)
        faded = min(len(self._tail), len(samples))
        rise = torch.sin((torch.arange(faded, device=samples.device) + 0.5) * (math.pi / 2 / max(faded, 1))).square()
        samples[:faded].lerp_(self._tail[:faded], 1 - rise)

        per_frame = self._vits.samples_per_frame
        end = (final - self._sent_frames) * per_frame
        self._tail = samples[end : end + _FADED_FRAMES * per_frame]
        self._sent_frames = final
        return samples[:end]

    def _encode(self) -> None:
        """Bring the encoder outputs up to the codes."""
        speech = self._vits.encode_speech(self._codes, self._text, self._style)
        kept = self._speech.shape[2]
        blended = min(_BLENDED_FRAMES, kept)
        if kept:
            rise = (torch.arange(blended, device=speech.device) + 0.5) / blended
            speech[:, :, kept - blended : kept].lerp_(self._speech[:, :, kept - blended :], 1 - rise)
            speech[:, :, : kept - blended] = self._speech[:, :, : kept - blended]
        self._speech = speech

    def _render(self, total: int, *, step: float) -> Tensor:
        """The samples from the first that was not sent to the end of frame `total`."""
        vits = self._vits
        speech = self._speech if self._speed == 1.0 else stretch(self._speech, total, step)
        context = max(0, self._sent_frames - vits.dec.reach_frames)  # what the generator must see
        start = max(0, context - vits.flow.reach_frames)  # what the flow must see for that
        mean, log_scale = vits.statistics(speech[:, :, start:])  # (1, L, T)
        drawn = self._noise.shape[2]
        fresh = draw_noise(mean.shape[1], total - drawn, self._generator).to(mean.device)
        self._noise = torch.cat([self._noise, fresh], dim=2) if drawn else fresh
        z = vits.flow.inverse(mean + self._noise[:, :, start:] * log_scale.exp() * self._noise_scale, self._style)
        wave: Tensor = vits.dec(z[:, :, context - start :], self._style)[0, 0]
        return wave[(self._sent_frames - context) * vits.samples_per_frame :]
