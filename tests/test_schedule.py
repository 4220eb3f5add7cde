"""Windows of the week, by the wall clock, through the nights in which clocks change."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.schedule import Window, covers

BERLIN = ZoneInfo("Europe/Berlin")


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc)


def minutes(windows: list[str], zone: str, first: str, hours: int) -> int:
    begin = utc(first)
    return sum(covers(windows, zone, begin + timedelta(minutes=minute)) for minute in range(hours * 60))


def test_a_night_belongs_to_the_evening_on_which_it_began() -> None:
    friday_night = ["fri 22:00-06:00"]
    assert covers(friday_night, "Europe/Berlin", utc("2026-01-16T21:00"))
    assert covers(friday_night, "Europe/Berlin", utc("2026-01-17T04:59"))
    assert not covers(friday_night, "Europe/Berlin", utc("2026-01-17T05:00"))
    assert not covers(friday_night, "Europe/Berlin", utc("2026-01-17T21:30"))


def test_the_wall_clock_counts_in_summer_and_in_winter() -> None:
    office = ["mon-fri 08:00-17:00"]
    assert covers(office, "Europe/Berlin", utc("2026-01-14T07:00"))
    assert not covers(office, "Europe/Berlin", utc("2026-01-14T06:59"))
    assert covers(office, "Europe/Berlin", utc("2026-07-15T06:00"))
    assert not covers(office, "Europe/Berlin", utc("2026-07-15T15:00"))


@pytest.mark.parametrize(
    ("first", "night", "hour"),
    [("2026-03-28T12:00", 7 * 60, 0), ("2026-10-24T12:00", 9 * 60, 2 * 60), ("2026-06-20T12:00", 8 * 60, 60)],
)
def test_nights_in_which_clocks_change_are_as_long_as_they_are(first: str, night: int, hour: int) -> None:
    """Clocks go from 02:00 to 03:00 on 29 March, and from 03:00 back to 02:00 on 25 October."""
    assert minutes(["22:00-06:00"], "Europe/Berlin", first, 24) == night
    assert minutes(["02:00-03:00"], "Europe/Berlin", first, 24) == hour


@given(st.datetimes(datetime(2025, 1, 1), datetime(2027, 1, 1), timezones=st.just(timezone.utc)))
def test_a_window_and_the_rest_of_the_day_share_no_moment_and_leave_none_out(moment: datetime) -> None:
    assert covers(["06:00-22:00"], "Europe/Berlin", moment) != covers(["22:00-06:00"], "Europe/Berlin", moment)
    assert covers(["sat,sun 00:00-24:00"], "Europe/Berlin", moment) == (moment.astimezone(BERLIN).weekday() >= 5)
    assert covers(["00:00-24:00"], None, moment)


def test_days_can_go_round_the_end_of_the_week() -> None:
    assert Window.of("sat-mon 10:00-11:00").days == {5, 6, 0}
    assert Window.of("MON,wed-thu 10:00-11:00").days == {0, 2, 3}


@pytest.mark.parametrize(
    "wrong", ["", "22-06", "22:00-06:60", "25:00-06:00", "06:00-24:01", "funday 08:00-09:00", "mon 8:00-9:00"]
)
def test_what_is_no_window_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        Window.of(wrong)
