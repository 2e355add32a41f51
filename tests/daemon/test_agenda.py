# SPDX-License-Identifier: MIT
from hypothesis import given
from hypothesis import strategies as st

from storewarden.config import Config
from storewarden.daemon.agenda import Agenda, Suspect
from storewarden.store.paths import StoreDir

NOW = 1000.0
CONFIG = Config()


STORE = StoreDir("/nix/store")
DRV = "26dj2bx997d5cck7cp3yv8zga3rcmw5f-job.drv"
SCRATCH = "pfs29h7l77fdk8hbvz51mxb40ksga5yl-job"
"""Where Nix 2.8 had that derivation built."""


def test_what_has_just_changed_is_looked_at_soon() -> None:
    agenda = Agenda()
    agenda.notice(["a"], NOW, STORE)
    assert 0 < agenda.suspects["a"].due - NOW < 0.2
    assert agenda.suspects["a"].new


def test_what_covers_an_output_is_known_from_the_lock_that_was_made_before_it() -> None:
    agenda = Agenda()
    agenda.notice([f"{DRV}.out.lock", SCRATCH], NOW, STORE)
    assert agenda.suspects[SCRATCH].covering == (f"{DRV}.out.lock",)
    agenda.suspects.clear()
    agenda.forget_locks()
    agenda.notice([SCRATCH], NOW, STORE)
    assert agenda.suspects[SCRATCH].covering == ()


def test_what_a_process_kept_is_looked_at_at_once_when_it_ends() -> None:
    agenda = Agenda()
    agenda.suspects = {name: Suspect(name, NOW).alive(NOW, frozenset({7})) for name in "ab"}
    agenda.suspects["b"] = Suspect("b", NOW).alive(NOW, frozenset({8}))
    agenda.died(7, NOW)
    assert agenda.due(NOW + 0.1) == ["a"]


def test_what_is_alive_is_looked_at_every_second_however_long_it_lives() -> None:
    suspect = Suspect("a", NOW)
    for _ in range(100):
        suspect = suspect.alive(NOW)
    assert suspect.due == NOW + 1


def test_what_is_too_young_is_looked_at_when_it_is_of_age() -> None:
    assert 0.5 < Suspect("a", NOW).young(NOW, 0.5).due - NOW < 0.7


def test_a_refusal_waits_twice_as_long_each_time_and_at_most_half_a_minute() -> None:
    waits = []
    suspect = Suspect("a", NOW)
    for _ in range(9):
        suspect = suspect.refused(NOW)
        waits.append(suspect.due - NOW)
    assert waits == [0.25, 0.5, 1, 2, 4, 8, 16, 30, 30]


def test_what_a_lock_covered_that_was_let_go_is_looked_at_at_once() -> None:
    for suspect in (Suspect("a", NOW).alive(NOW), Suspect("a", NOW, 16).refused(NOW)):
        assert NOW < suspect.released(NOW).due < NOW + 0.1
    assert Suspect("a", NOW).released(NOW).due == NOW, "no event delays"


def test_a_failure_remembers_since_when_and_why() -> None:
    once = Suspect("a", NOW).failed(NOW, 5.0, "output", ("disk full",))
    twice = once.failed(NOW, 9.0, "output", ("still full",))
    assert (twice.since, twice.reasons, twice.kind) == (5.0, ("still full",), "output")
    assert twice.waited == 2 * once.waited


def test_a_claim_seen_later_takes_the_failure_back() -> None:
    stuck = Suspect("a", NOW).failed(NOW, 5.0, "output", ("disk full",))
    assert stuck.refused(NOW).reasons == ()
    assert stuck.alive(NOW).reasons == ()


@given(st.lists(st.floats(0, 2000), max_size=20))
def test_those_are_due_whose_time_has_come_and_the_next_is_the_first(times: list[float]) -> None:
    agenda = Agenda({str(n): Suspect(str(n), time) for n, time in enumerate(times)}, swept=NOW)
    due = {agenda.suspects[name].due for name in agenda.due(NOW)}
    assert due == {time for time in times if time <= NOW}
    assert agenda.next_at(CONFIG) == min([*times, NOW + CONFIG.sweep_interval])


def test_no_event_delays_a_look() -> None:
    agenda = Agenda({"a": Suspect("a", NOW)})
    agenda.notice(["a"], NOW, STORE)
    agenda.release(["a"], NOW, STORE)
    assert agenda.suspects["a"].due == NOW


def test_a_sweep_is_due_at_the_start_and_then_by_the_timer_or_when_asked_for() -> None:
    agenda = Agenda()
    assert agenda.sweep_at(CONFIG) < NOW
    agenda.swept = NOW
    assert agenda.sweep_at(CONFIG) == NOW + CONFIG.sweep_interval
    agenda.sweep_asked = True
    assert agenda.sweep_at(CONFIG) == NOW


def test_after_changes_without_names_sweeps_take_a_twentieth_of_the_time() -> None:
    agenda = Agenda(swept=NOW, changed=True)
    assert agenda.sweep_at(CONFIG) == NOW + CONFIG.poll_interval
    agenda.sweep_seconds = 100.0
    assert agenda.sweep_at(CONFIG) == NOW + 2000
