# SPDX-License-Identifier: MIT
from hypothesis import given
from hypothesis import strategies as st

from storewarden.daemon.suspects import (
    Suspect,
    alive,
    due,
    failed,
    next_due,
    noticed,
    refused,
    released,
    young,
)

NOW = 1000.0


def test_what_has_just_changed_is_looked_at_when_it_is_of_age() -> None:
    assert 2.0 < noticed("a", NOW, 2.0).due - NOW < 2.2


def test_what_is_alive_is_looked_at_every_second_however_long_it_lives() -> None:
    suspect = Suspect("a", NOW)
    for _ in range(100):
        suspect = alive(suspect, NOW)
    assert suspect.due == NOW + 1


def test_what_is_too_young_is_looked_at_when_it_is_of_age() -> None:
    assert 0.5 < young(Suspect("a", NOW), NOW, 0.5).due - NOW < 0.7


def test_a_refusal_waits_twice_as_long_each_time_and_at_most_half_a_minute() -> None:
    waits = []
    suspect = Suspect("a", NOW)
    for _ in range(9):
        suspect = refused(suspect, NOW)
        waits.append(suspect.due - NOW)
    assert waits == [0.25, 0.5, 1, 2, 4, 8, 16, 30, 30]


def test_what_a_lock_covered_that_was_let_go_is_looked_at_at_once() -> None:
    for suspect in (alive(Suspect("a", NOW), NOW), refused(Suspect("a", NOW, 16), NOW)):
        assert NOW < released(suspect, NOW).due < NOW + 0.1
    assert released(Suspect("a", NOW), NOW).due == NOW, "no event delays"


def test_a_failure_remembers_since_when_and_why() -> None:
    once = failed(Suspect("a", NOW), NOW, 5.0, "output", ("disk full",))
    twice = failed(once, NOW, 9.0, "output", ("still full",))
    assert (twice.since, twice.reasons, twice.kind) == (5.0, ("still full",), "output")
    assert twice.waited == 2 * once.waited


def test_a_claim_seen_later_takes_the_failure_back() -> None:
    stuck = failed(Suspect("a", NOW), NOW, 5.0, "output", ("disk full",))
    assert refused(stuck, NOW).reasons == ()
    assert alive(stuck, NOW).reasons == ()


@given(st.lists(st.floats(0, 2000), max_size=20))
def test_those_are_due_whose_time_has_come_and_the_next_is_the_first(times: list[float]) -> None:
    suspects = {str(n): Suspect(str(n), time) for n, time in enumerate(times)}
    assert {suspects[name].due for name in due(suspects, NOW)} == {t for t in times if t <= NOW}
    assert next_due(suspects) == min(times, default=float("inf"))
