from hypothesis import given
from hypothesis import strategies as st

from blocks.core.status import Status, best, worst

some = st.lists(st.sampled_from(Status))


def test_open_is_over_busy_is_over_closed():
    assert Status.OPEN > Status.BUSY > Status.CLOSED


def test_of_nothing_all_is_well_and_none_is_left():
    assert worst([]) is Status.OPEN
    assert best([]) is Status.CLOSED


@given(some, some)
def test_parts_may_be_grouped_as_one_likes(one: list[Status], other: list[Status]):
    assert worst([worst(one), worst(other)]) is worst(one + other) is worst(other + one)
    assert best([best(one), best(other)]) is best(one + other) is best(other + one)
