# SPDX-License-Identifier: MIT
"""Nix asked in batches, so that who waits can be told how far it is."""

from dataclasses import replace
from pathlib import Path

from explaining import nix_of
from stand_in import write_answering_nix, write_program
from storewarden.observe import ask_in_batches
from storewarden.store.paths import StorePath
from storewarden.store.store import Fact, Known
from storewarden.throwaway import ThrowawayStore

PATHS = [StorePath(f"{number:032d}-x") for number in range(450)]


def test_each_batch_is_told_before_it_is_asked_and_all_is_answered(
    place: ThrowawayStore, tmp_path: Path
) -> None:
    valid = place.path(PATHS[449].base_name)
    nix = nix_of(place, write_answering_nix(f"{tmp_path}/nix-program", [valid]))
    told: list[tuple[int, int]] = []
    answers = ask_in_batches(nix, PATHS, lambda *at: told.append(at))
    assert told == [(0, 450), (200, 450), (400, 450)]
    assert list(answers) == PATHS
    assert [path for path, fact in answers.items() if fact.known is Known.YES] == [PATHS[449]]


def test_a_nix_that_hangs_is_waited_for_once(place: ThrowawayStore, tmp_path: Path) -> None:
    program = write_program(f"{tmp_path}/nix-program", "exec sleep 60\n")
    nix = replace(nix_of(place, program), timeout=0.5)
    told: list[int] = []
    answers = ask_in_batches(nix, PATHS, lambda asked, _: told.append(asked))
    assert told == [0]
    silent = Fact(Known.UNKNOWN, "nix-program did not answer within 0.5 s: is nix-daemon hung?")
    assert answers == dict.fromkeys(PATHS, silent)


def test_answers_before_a_hang_are_kept(place: ThrowawayStore, tmp_path: Path) -> None:
    write_answering_nix(f"{tmp_path}/answers")
    last = PATHS[-1]
    body = f'case "$*" in *{last.base_name}*) exec sleep 300 ;; esac; exec {tmp_path}/answers "$@"'
    nix = replace(nix_of(place, write_program(f"{tmp_path}/nix-program", f"{body}\n")), timeout=1.0)
    answers = ask_in_batches(nix, PATHS, lambda _asked, _all: None)
    assert {answers[path].known for path in PATHS[:400]} == {Known.NO}
    assert answers[last].known is Known.UNKNOWN


def test_a_batch_that_nix_refuses_does_not_keep_the_others_from_being_asked(
    place: ThrowawayStore, tmp_path: Path
) -> None:
    write_answering_nix(f"{tmp_path}/answers")
    body = f'case "$*" in *{PATHS[0].base_name}*) exit 1 ;; esac; exec {tmp_path}/answers "$@"\n'
    nix = nix_of(place, write_program(f"{tmp_path}/nix-program", body))
    answers = ask_in_batches(nix, PATHS, lambda _asked, _all: None)
    known = [answers[path].known for path in PATHS]
    assert known == [Known.UNKNOWN] * 200 + [Known.NO] * 250
