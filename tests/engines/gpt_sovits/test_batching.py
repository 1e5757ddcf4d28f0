"""Which texts are decoded together."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from synthesis.engines.gpt_sovits.parity.batching import bucket_by_length, group_in_order, restore_order
from synthesis.engines.gpt_sovits.parity.features import bucket_checks
from synthesis.engines.gpt_sovits.parity.report import GoldenSet

GOLDEN = Path(__file__).parents[1] / "golden" / "open"


def test_batches_equal_upstreams():
    cases = list(bucket_checks(GoldenSet(GOLDEN, "buckets")))
    assert len(cases) == 16
    assert [case.name for case in cases if not case.holds] == []


def test_long_text_does_not_join_short_ones():
    assert bucket_by_length([5, 100, 5, 5], batch_size=4, threshold=0.75) == [[0, 2, 3], [1]]


def test_ratio_of_exactly_the_threshold_splits():
    """3 / 4 misses 0.75 by the 1e-8 that upstream adds to the mean."""
    assert bucket_by_length([1, 3, 8], batch_size=3, threshold=0.75) == [[0, 1], [2]]
    assert bucket_by_length([1, 3, 8], batch_size=3, threshold=0.7499) == [[0, 1, 2]]


@given(
    lengths=st.lists(st.integers(1, 510), max_size=40),
    batch_size=st.integers(1, 9),
    threshold=st.floats(0.0, 2.0),
)
def test_every_text_is_in_one_batch_and_comes_back_in_its_place(lengths, batch_size, threshold):
    for batches in (
        bucket_by_length(lengths, batch_size=batch_size, threshold=threshold),
        group_in_order(len(lengths), batch_size=batch_size),
    ):
        assert all(1 <= len(batch) <= batch_size for batch in batches)
        assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
        values = [[lengths[index] for index in batch] for batch in batches]
        assert restore_order(values, batches) == lengths
