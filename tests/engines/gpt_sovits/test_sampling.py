"""Choosing the next code: upstream's numbers, and rows that do not touch each other."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from synthesis.engines.gpt_sovits.errors import InvalidSamplingError
from synthesis.engines.gpt_sovits.parity.report import GoldenSet
from synthesis.engines.gpt_sovits.parity.semantic import sampling_checks
from synthesis.engines.gpt_sovits.sampling import Sampler, SamplingOptions, draw, draw_noise

GOLDEN = GoldenSet(Path(__file__).parent.parent / "golden" / "open", "sampling")
CPU = torch.device("cpu")

options = st.builds(
    SamplingOptions,
    top_k=st.integers(1, 60),
    top_p=st.floats(0.05, 1.0),
    temperature=st.floats(0.0, 2.0),
    repetition_penalty=st.floats(0.5, 2.0),
)


def test_numbers_are_upstreams():
    cases = list(sampling_checks(GOLDEN))
    assert len(cases) == 3 * len(GOLDEN.description["cases"])
    assert [case.name for case in cases if not case.holds] == []


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(options, min_size=1, max_size=5), seed=st.integers(0, 2**31))
def test_each_row_of_a_batch_is_sampled_as_if_alone(rows, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(len(rows), 50, generator=generator)
    seen = torch.rand(len(rows), 50, generator=generator) < 0.3
    together = logits.clone()
    sampler = Sampler(rows, 50, CPU)
    sampler.penalise(together, seen)
    probabilities = sampler.probabilities(together)
    for index, row in enumerate(rows):
        alone = logits[index : index + 1].clone()
        sampler = Sampler([row], 50, CPU)
        sampler.penalise(alone, seen[index : index + 1])
        assert torch.equal(together[index], alone[0])
        assert torch.equal(probabilities[index], sampler.probabilities(alone)[0])


def test_penalty_counts_a_repeated_code_once_and_works_in_place():
    logits = torch.tensor([[2.0, -2.0, 1.0, -1.0]])
    seen = torch.tensor([[True, True, False, False]])
    Sampler([SamplingOptions(repetition_penalty=2.0)], 4, CPU).penalise(logits, seen)
    assert logits.tolist() == [[1.0, -4.0, 1.0, -1.0]]


def test_top_p_drops_the_code_that_crosses_it_but_never_the_best():
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log()

    def left(top_p: float) -> list[bool]:
        sampler = Sampler([SamplingOptions(top_p=top_p, top_k=3)], 3, CPU)
        return (sampler.probabilities(logits)[0] > 0).tolist()

    assert left(0.9) == [True, True, False]
    assert left(0.7) == [True, False, False]
    assert left(0.1) == [True, False, False]
    assert left(1.0) == [True, True, True]


def test_top_k_keeps_equals_of_the_last_one():
    probabilities = Sampler([SamplingOptions(top_k=2)], 4, CPU).probabilities(torch.tensor([[3.0, 1.0, 1.0, 0.0]]))
    assert (probabilities[0] > 0).tolist() == [True, True, True, False]


def test_temperature_zero_is_greedy():
    probabilities = Sampler([SamplingOptions(temperature=0.0)], 3, CPU).probabilities(torch.tensor([[1.0, 1.1, 0.9]]))
    assert probabilities.tolist() == [[0.0, 1.0, 0.0]]


def test_drawn_codes_follow_the_probabilities():
    probabilities = torch.tensor([0.6, 0.3, 0.1, 0.0]).expand(20_000, 4)
    noise = torch.empty(4 * 20_000)[None]
    draw_noise(noise, [torch.Generator().manual_seed(3)])
    shares = draw(probabilities, noise.view(20_000, 4)).bincount(minlength=4) / 20_000
    # Standard error of a share is below 0.0035.
    torch.testing.assert_close(shares, probabilities[0], rtol=0, atol=0.015)


def test_noise_comes_from_each_rows_generator_alone():
    together = torch.empty(2, 30)
    draw_noise(together, [torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)])
    alone = torch.empty(1, 30)
    draw_noise(alone, [torch.Generator().manual_seed(2)])
    assert torch.equal(together[1], alone[0])
    assert not torch.equal(together[0], together[1])
    assert torch.isfinite(together).all()
    assert (together > 0).all()


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("top_k", [0, -5]),
        ("top_p", [0.0, -0.1, 1.01, math.nan]),
        ("temperature", [-0.1, math.inf, math.nan]),
        ("repetition_penalty", [0.0, -1.0, math.inf, math.nan]),
    ],
)
def test_options_outside_their_range_are_refused(option, values):
    SamplingOptions(**{option: 1})
    for value in values:
        with pytest.raises(InvalidSamplingError) as caught:
            SamplingOptions(**{option: value})
        assert (caught.value.code, caught.value.details["option"]) == ("invalid_sampling", option)
