"""Short turns hold for as long as anybody is inside, and leave the interval as it was."""

from __future__ import annotations

import sys

import pytest

from blocks.core.turns import SHORT, short_turns


def test_the_last_one_out_restores_the_interval() -> None:
    before = sys.getswitchinterval()
    with short_turns():
        with short_turns():
            assert sys.getswitchinterval() == pytest.approx(SHORT)
        assert sys.getswitchinterval() == pytest.approx(SHORT)
    assert sys.getswitchinterval() == before
    with pytest.raises(RuntimeError), short_turns():
        raise RuntimeError
    assert sys.getswitchinterval() == before
