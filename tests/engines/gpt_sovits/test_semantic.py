"""The text-to-semantic transformer: upstream's codes, and rows that come and go without touching each other."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from synthesis.engines.gpt_sovits.config import SemanticConfig
from synthesis.engines.gpt_sovits.errors import (
    CheckpointMismatchError,
    DecoderFullError,
    InvalidSemanticRowError,
    SegmentTooLongError,
)
from synthesis.engines.gpt_sovits.parity.report import GoldenSet, recipe_state
from synthesis.engines.gpt_sovits.parity.semantic import semantic_checks
from synthesis.engines.gpt_sovits.sampling import SamplingOptions
from synthesis.engines.gpt_sovits.semantic import (
    BERT_CHANNELS,
    DecodeBatch,
    FinishReason,
    Linear,
    SemanticDecoder,
    SemanticRow,
    can_pack,
    decode_rows,
    state_shapes,
)

GOLDEN = GoldenSet(Path(__file__).parent.parent / "golden" / "open", "ar_tiny")
CPU = torch.device("cpu")
CONFIG = SemanticConfig(width=32, heads=2, layers=2, phones=40, codes=65)
STATE = recipe_state(state_shapes(CONFIG), seed=11, prefix="model.")
GREEDY = SamplingOptions(top_k=1)
SAMPLED = SamplingOptions(top_k=15, top_p=0.9, temperature=0.9)
POSITIONS = 96


@pytest.fixture(scope="module")
def decoder() -> SemanticDecoder:
    return SemanticDecoder.from_state(STATE, CONFIG, device=CPU, dtype=torch.float32)


def make_row(seed: int, *, phones: int | None = None, prompt: int | None = None, **changes) -> SemanticRow:
    """A row that is the same for the same arguments, with a generator of its own."""
    generator = torch.Generator().manual_seed(seed)
    phones = 3 + seed % 20 if phones is None else phones
    prompt = seed * 7 % 13 if prompt is None else prompt  # 0 for some
    row = SemanticRow(
        phones=torch.randint(CONFIG.phones, (phones,), generator=generator),
        bert=torch.randn(BERT_CHANNELS, phones, generator=generator),
        prompt=torch.randint(CONFIG.end_code, (prompt,), generator=generator),
        sampling=SAMPLED if seed % 2 else GREEDY,
        generator=torch.Generator().manual_seed(seed),
        max_codes=30,
        min_codes=3,
    )
    return dataclasses.replace(row, **changes)


def decode_alone(decoder: SemanticDecoder, row: SemanticRow) -> list[int]:
    return decode_rows(decoder, [row])[0].codes


def test_codes_and_logits_are_upstreams():
    cases = list(semantic_checks(GOLDEN))
    described = GOLDEN.description["cases"]
    rows = sum(len(case.get("lens", [0])) for case in described)
    assert len(cases) == rows + sum("logits_step" in key for key in GOLDEN.tensors)
    assert [case.name for case in cases if not case.holds] == []


def test_cached_decoding_equals_reading_everything_again(decoder):
    rows = [make_row(seed, max_codes=12, min_codes=12) for seed in (1, 2, 3)]
    batch = DecodeBatch(decoder, rows=3, positions=POSITIONS)
    codes = {number: row.prompt.tolist() for number, row in zip(batch.admit(rows), rows, strict=True)}
    while batch.live:
        cached = batch.next_logits()
        again = DecodeBatch(decoder, rows=3, positions=POSITIONS)
        again.admit([dataclasses.replace(row, prompt=torch.tensor(codes[n])) for n, row in enumerate(rows)])
        torch.testing.assert_close(cached, again.next_logits(), rtol=1e-4, atol=1e-4)
        for event in batch.advance(cached):
            codes[event.row].append(event.code)
    assert [len(made) - len(row.prompt) for made, row in zip(codes.values(), rows, strict=True)] == [12] * 3


def test_eight_rows_with_different_prompts_give_what_each_gives_alone(decoder):
    seeds = range(8)
    together = decode_rows(decoder, [make_row(seed) for seed in seeds])
    assert [decoded.codes for decoded in together] == [decode_alone(decoder, make_row(seed)) for seed in seeds]
    assert len({tuple(decoded.codes) for decoded in together}) == 8
    assert {decoded.finish for decoded in together} == {FinishReason.END, FinishReason.LIMIT}


@pytest.fixture(scope="module")
def codes_alone(decoder) -> list[list[int]]:
    """Of the rows with seeds 0 to 15."""
    return [decode_alone(decoder, make_row(seed)) for seed in range(16)]


@settings(max_examples=30, deadline=None)
@given(
    actions=st.lists(
        st.one_of(
            st.tuples(st.just("admit"), st.lists(st.integers(0, 15), min_size=1, max_size=3)),
            st.tuples(st.just("step"), st.integers(1, 6)),
            st.tuples(st.just("remove"), st.integers(0, 4)),
        ),
        max_size=12,
    )
)
def test_rows_that_join_and_leave_at_any_step_give_what_they_give_alone(decoder, codes_alone, actions):
    """Three places for many rows, so a place has had other occupants."""
    batch = DecodeBatch(decoder, rows=3, positions=POSITIONS)
    seeds: dict[int, int] = {}
    codes: dict[int, list[int]] = {}
    finished: set[int] = set()
    removed: set[int] = set()

    def step() -> None:
        for event in batch.step():
            assert event.row not in finished | removed
            if event.code is not None:
                codes[event.row].append(event.code)
            if event.finish is not None:
                finished.add(event.row)

    for action, argument in actions:
        if action == "admit":
            joining = argument[: batch.free]
            for number, seed in zip(batch.admit([make_row(seed) for seed in joining]), joining, strict=True):
                seeds[number], codes[number] = seed, []
        elif action == "step":
            for _ in range(argument):
                step()
        else:
            live = sorted(seeds.keys() - finished - removed)
            if live:
                number = live[argument % len(live)]
                batch.remove(number)
                removed.add(number)
        assert batch.live + batch.free == 3
        assert batch.live == len(seeds) - len(finished) - len(removed)
    while batch.live:
        step()
    for number, seed in seeds.items():
        alone = codes_alone[seed]
        assert codes[number] == (alone[: len(codes[number])] if number in removed else alone)


def test_a_row_that_leaves_makes_room_and_disturbs_nobody(decoder):
    batch = DecodeBatch(decoder, rows=2, positions=POSITIONS)
    first, second = batch.admit([make_row(4), make_row(9)])
    batch.step()
    with pytest.raises(DecoderFullError) as caught:
        batch.admit([make_row(5)])
    assert (caught.value.code, caught.value.retryable) == ("decoder_full", True)
    batch.remove(first)
    with pytest.raises(KeyError):
        batch.remove(first)
    (third,) = batch.admit([make_row(5)])
    assert third not in (first, second)
    codes: dict[int, list[int]] = {second: [], third: []}
    while batch.live:
        for event in batch.step():
            codes[event.row] += [] if event.code is None else [event.code]
    assert codes[third] == decode_alone(decoder, make_row(5))
    assert codes[second] == decode_alone(decoder, make_row(9))[1:]  # its first code came in the first step


def test_two_batches_of_one_decoder_share_nothing(decoder):
    batches = [DecodeBatch(decoder, rows=1, positions=POSITIONS) for _ in range(2)]
    codes: list[list[int]] = [[], []]
    for seed, batch in enumerate(batches, start=4):
        batch.admit([make_row(seed)])
    while any(batch.live for batch in batches):
        for made, batch in zip(codes, batches, strict=True):
            made += [event.code for event in batch.step() if event.code is not None]
    assert codes == [decode_alone(decoder, make_row(seed)) for seed in (4, 5)]


def test_without_a_prompt_the_first_code_comes_from_the_text(decoder):
    alone = decode_alone(decoder, make_row(6, prompt=0))
    assert len(alone) >= 3
    assert alone != decode_alone(decoder, make_row(6, prompt=5))
    together = decode_rows(decoder, [make_row(6, prompt=0), make_row(7, prompt=5)])
    assert together[0].codes == alone
    assert decode_rows(decoder, []) == []


def test_no_code_is_lost_at_the_limit(decoder):
    whole = decode_rows(decoder, [make_row(8, max_codes=20, min_codes=20)])[0]
    for limit in (1, 2, 19, 20):
        cut = decode_rows(decoder, [make_row(8, max_codes=limit, min_codes=20)])[0]
        assert (cut.codes, cut.finish) == (whole.codes[:limit], FinishReason.LIMIT)


def test_the_end_cannot_come_before_the_least_number_of_codes(decoder):
    ends = [decode_rows(decoder, [make_row(seed, min_codes=0, max_codes=60)])[0] for seed in range(12)]
    early = [seed for seed, decoded in enumerate(ends) if decoded.finish is FinishReason.END and len(decoded.codes) < 5]
    assert early
    for seed in early:
        assert len(decode_alone(decoder, make_row(seed, min_codes=5, max_codes=60))) >= 5


def test_a_row_that_cannot_fit_is_refused_and_nobody_of_its_group_joins(decoder):
    fitting = make_row(1, phones=50, prompt=17, max_codes=30)
    assert fitting.positions == POSITIONS
    batch = DecodeBatch(decoder, rows=2, positions=POSITIONS)
    with pytest.raises(SegmentTooLongError) as caught:
        batch.admit([make_row(2), dataclasses.replace(fitting, max_codes=31)])
    assert caught.value.details == {"needed": POSITIONS + 1, "available": POSITIONS}
    assert (batch.live, batch.free, batch.step()) == (0, 2, [])
    (number,) = batch.admit([dataclasses.replace(fitting, min_codes=30)])
    events = [event for _ in range(30) for event in batch.step()]
    assert (events[-1].row, events[-1].finish, len(events)) == (number, FinishReason.LIMIT, 30)


@pytest.mark.parametrize(
    "changes",
    [
        {"phones": torch.zeros(0, dtype=torch.int64), "bert": torch.zeros(BERT_CHANNELS, 0)},
        {"phones": torch.tensor([1, 2, CONFIG.phones])},
        {"phones": torch.tensor([1, 2, -1])},
        {"phones": torch.tensor([1.0, 2.0, 3.0])},
        {"bert": torch.zeros(BERT_CHANNELS, 4)},
        {"bert": torch.zeros(3, BERT_CHANNELS)},
        {"prompt": torch.tensor([1, CONFIG.end_code])},
        {"prompt": torch.tensor([[1, 2]])},
        {"max_codes": 0},
    ],
)
def test_rows_the_model_cannot_take_are_refused(decoder, changes):
    sound: dict[str, Any] = {"phones": torch.tensor([1, 2, 3]), "bert": torch.zeros(BERT_CHANNELS, 3)}
    batch = DecodeBatch(decoder, rows=1, positions=POSITIONS)
    with pytest.raises(InvalidSemanticRowError) as caught:
        batch.admit([dataclasses.replace(make_row(1), **(sound | changes))])
    assert caught.value.code == "invalid_semantic_row"
    batch.admit([dataclasses.replace(make_row(1), **sound)])
    assert batch.live == 1


def test_loading_is_strict():
    broken = dict(STATE)
    del broken["h.layers.1.norm2.bias"]
    broken["h.layers.2.norm2.bias"] = torch.zeros(32)
    broken["bert_proj.bias"] = torch.zeros(31)
    with pytest.raises(CheckpointMismatchError) as caught:
        SemanticDecoder.from_state(broken, CONFIG, device=CPU, dtype=torch.float32)
    details = caught.value.details
    assert details["missing"] == ["h.layers.1.norm2.bias"]
    assert details["unexpected"] == ["h.layers.2.norm2.bias"]
    assert list(details["misshapen"]) == ["bert_proj.bias"]


def test_half_precision_files_load_into_float32(decoder):
    halved = {key: tensor.half() for key, tensor in STATE.items()}
    loaded = SemanticDecoder.from_state(halved, CONFIG, device=CPU, dtype=torch.float32)
    rounded = SemanticDecoder.from_state(
        {key: tensor.float() for key, tensor in halved.items()}, CONFIG, device=CPU, dtype=torch.float32
    )
    assert torch.equal(first_logits(loaded, [make_row(1)]), first_logits(rounded, [make_row(1)]))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_packed_and_plain_linear_layers_agree(dtype, tolerance):
    assert can_pack(CPU, torch.float32)  # or every test here has run the plain layer
    generator = torch.Generator().manual_seed(5)
    weight, bias = torch.randn(48, 32, generator=generator), torch.randn(48, generator=generator)
    packed = Linear(weight, bias, dtype)
    plain = Linear(weight, bias, dtype, is_packed=False)
    for rows in (1, 4, 9):
        x = torch.randn(rows, 32, generator=generator)
        for relu in (False, True):
            wanted = torch.nn.functional.linear(x, weight, bias)
            wanted = wanted.relu() if relu else wanted
            for layer in (packed, plain):
                found = layer(x, relu=relu)
                assert found.dtype == dtype
                torch.testing.assert_close(found.float(), wanted, rtol=tolerance, atol=tolerance * 10)


def test_bfloat16_stays_near_float32(decoder):
    """Within 3 % of the largest logit: bfloat16 keeps 8 bits, and every layer rounds a few times."""
    rows = [make_row(seed) for seed in range(6)]
    rounded = SemanticDecoder.from_state(STATE, CONFIG, device=CPU, dtype=torch.bfloat16)
    wanted, found = first_logits(decoder, rows), first_logits(rounded, rows)
    assert found.dtype == torch.float32
    error = float((found - wanted).abs().max() / wanted.abs().max())
    assert 0 < error < 0.03
    together = [decoded.codes for decoded in decode_rows(rounded, rows)]
    assert together == [decode_alone(rounded, make_row(seed)) for seed in range(6)]


def first_logits(decoder: SemanticDecoder, rows: list[SemanticRow]) -> torch.Tensor:
    batch = DecodeBatch(decoder, rows=len(rows), positions=POSITIONS)
    batch.admit(rows)
    return batch.next_logits()
