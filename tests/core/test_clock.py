import time

import pytest

from blocks.core.clock import SYSTEM, Clock, FakeClock


def test_a_fake_clock_moves_when_it_is_told():
    clock: Clock = FakeClock(wall=100.0, monotonic=5.0)
    assert isinstance(clock, FakeClock)
    clock.advance(2.5)
    assert (clock.wall(), clock.monotonic()) == (102.5, 7.5)


def test_a_jump_of_the_wall_is_no_time_that_passed():
    clock = FakeClock(wall=100.0, monotonic=5.0)
    clock.jump(-50)
    assert (clock.wall(), clock.monotonic()) == (50.0, 5.0)


def test_time_does_not_go_back():
    with pytest.raises(ValueError, match="forwards"):
        FakeClock().advance(-1)


def test_the_system_clock_is_the_machines():
    assert abs(SYSTEM.wall() - time.time()) < 5
    assert SYSTEM.monotonic() <= SYSTEM.monotonic()
