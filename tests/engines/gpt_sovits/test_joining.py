"""Pieces of a wave become one wave."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from synthesis.engines.gpt_sovits.parity.features import to_upstream_int16, wave_checks
from synthesis.engines.gpt_sovits.parity.joining import fade_over, join_overlapping, join_with_pauses, limit_peak
from synthesis.engines.gpt_sovits.parity.report import GoldenSet

GOLDEN = Path(__file__).parents[1] / "golden" / "open"


@pytest.fixture
def wave():
    """(20000,), no two stretches alike."""
    return torch.randn(20_000, generator=torch.Generator().manual_seed(3)) * 0.1


def test_joins_equal_upstreams():
    cases = list(wave_checks(GoldenSet(GOLDEN, "sola_post")))
    assert [case.name for case in cases] == ["sola_post.sola", "sola_post.post"]
    assert [case.name for case in cases if not case.holds] == []


@pytest.mark.parametrize("early", [0, 1, 200, 320])
def test_piece_that_began_early_is_moved_into_place(wave, early):
    """Cut from one wave, the pieces give it back: no sample lost, doubled or faded."""
    pieces = [wave[:8000], wave[8000 - 640 - early : 14_000], wave[14_000 - 640 - early :]]
    torch.testing.assert_close(join_overlapping(pieces, overlap_samples=640), wave, rtol=0, atol=1e-6)


def test_fade_begins_with_the_tail_and_ends_with_what_follows(wave):
    tail, following = wave[:640], wave[1000:4000]
    joined = fade_over(tail, following)
    shift = len(following) - len(joined)
    assert 0 <= shift <= 320
    assert joined[0] == tail[0]
    torch.testing.assert_close(joined[640:], following[shift + 640 :], rtol=0, atol=0)
    assert joined.abs().max() <= torch.maximum(tail.abs().max(), following.abs().max())


def test_silence_is_joined_where_it_stands():
    assert fade_over(torch.zeros(640), torch.zeros(2000)).tolist() == [0.0] * 2000


def test_piece_as_short_as_the_overlap_is_joined(wave):
    assert len(join_overlapping([wave[:2000], wave[1360:2000]], overlap_samples=640)) == 2000


def test_one_piece_is_the_wave(wave):
    torch.testing.assert_close(join_overlapping([wave], overlap_samples=640), wave, rtol=0, atol=0)


def test_joining_changes_no_piece(wave):
    pieces = [wave[:8000].clone(), wave[7000:].clone()]
    before = [piece.clone() for piece in pieces]
    join_overlapping(pieces, overlap_samples=640)
    for piece, alike in zip(pieces, before, strict=True):
        assert torch.equal(piece, alike)


def test_peak_is_limited_only_above_full_scale():
    assert limit_peak(torch.tensor([0.5, -0.25])).tolist() == [0.5, -0.25]
    assert limit_peak(torch.tensor([1.0, -2.0])).tolist() == [0.5, -1.0]
    assert limit_peak(torch.zeros(0)).tolist() == []


def test_each_utterance_is_limited_alone_and_followed_by_its_pause():
    joined = join_with_pauses([torch.tensor([4.0, 2.0]), torch.tensor([0.5])], pause_samples=2)
    assert joined.tolist() == [1.0, 0.5, 0.0, 0.0, 0.5, 0.0, 0.0]


def test_upstreams_integers_truncate_and_wrap():
    wave = torch.tensor([1.0, -1.0, 0.99999, -1.9 / 32768, 1.9 / 32768])
    assert to_upstream_int16(wave).tolist() == [-32768, -32768, 32767, -1, 1]
