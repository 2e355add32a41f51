# SPDX-License-Identifier: MIT
"""Each form in which a build writes to a path goes, but only under the locks of that build."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from helper.bench import live_temp_root, names, records, run
from helper.child import needs_root
from storewarden import host
from storewarden.store.paths import StorePath, output_lock, path_lock, redirect_path
from storewarden.store.store import Store
from storewarden.throwaway import ThrowawayStore
from sweeps import alone, holding
from tables import know_output, realise


@dataclass(frozen=True, slots=True)
class Made:
    """A stranded path, and what a living build of it holds: a lock, and temp roots on these."""

    path: StorePath
    lock: str
    rooted: tuple[StorePath, ...]


def scratch(place: ThrowawayStore) -> Made:
    derivation = place.add_derivation("x")
    return Made(place.strand(derivation), output_lock(derivation, "out"), (derivation,))


def rewritten(place: ThrowawayStore) -> Made:
    base = scratch(place)
    path = StorePath(f"{base.path.base_name}.tmp")
    place.add_output(path)
    return replace(base, path=path)


def redirect_of_a_known_path(place: ThrowawayStore) -> Made:
    derivation, valid = place.add_derivation("x"), place.add_valid("x")
    know_output(place, derivation, "out", valid)
    path = redirect_path(derivation, valid, place.store_dir)
    place.add_output(path)
    return Made(path, path_lock(valid), (derivation, valid))


def redirect_of_a_floating_path(place: ThrowawayStore) -> Made:
    derivation, valid = place.add_derivation("x"), place.add_valid("x")
    realise(place, "Realisations", derivation, "out", valid)
    path = redirect_path(derivation, valid, place.store_dir)
    place.add_output(path)
    return Made(path, output_lock(derivation, "out"), (derivation, valid))


def known_realisation(place: ThrowawayStore) -> Made:
    """As in Nix 2.35: the path is gone from the database, and its realisation is not."""
    derivation, path = place.add_derivation("x"), place.invent("x")
    realise(place, "BuildTraceV3", derivation, "out", path)
    place.add_output(path)
    return Made(path, output_lock(derivation, "out"), (derivation,))


def known_output(place: ThrowawayStore) -> Made:
    derivation, path = place.add_derivation("x"), place.invent("x")
    know_output(place, derivation, "out", path)
    place.add_output(path)
    return Made(path, path_lock(path), (derivation,))


EVERY_FORM = [
    scratch,
    rewritten,
    redirect_of_a_known_path,
    redirect_of_a_floating_path,
    known_realisation,
    known_output,
]
every_form = pytest.mark.parametrize("form", EVERY_FORM)
Form = Callable[[ThrowawayStore], Made]


@every_form
def test_it_goes_where_nobody_holds_what_a_build_of_it_holds(
    form: Form, place: ThrowawayStore
) -> None:
    made = form(place)
    before = names(place) - {made.path.base_name}
    assert run(place, made.path.base_name, store=alone(place))[-1].status == "removed"
    assert names(place) == before
    intent, _ = records(place)
    locks = intent["locks"]
    assert isinstance(locks, list)
    assert {made.lock, path_lock(made.path)} <= set(locks)
    assert intent["deriver"] == made.rooted[0].base_name


@every_form
def test_the_lock_of_a_living_build_of_it_keeps_it(form: Form, place: ThrowawayStore) -> None:
    made = form(place)
    with holding(place.path(made.lock)):
        (outcome,) = run(place, made.path.base_name, store=alone(place))
    assert (outcome.status, outcome.unproved) == ("kept", False)
    assert f"({made.lock} is held)" in outcome.reasons[0]
    assert made.path.base_name in names(place)


@every_form
def test_a_temp_root_of_a_living_build_of_it_keeps_it(form: Form, place: ThrowawayStore) -> None:
    made = form(place)
    for path in made.rooted:
        with live_temp_root(place, path):
            (outcome,) = run(place, made.path.base_name, store=alone(place))
        assert (outcome.status, outcome.unproved) == ("kept", False)
        assert "temp root" in outcome.reasons[0]


def with_build_users(place: ThrowawayStore) -> Store:
    """The store of a machine where builds run as users of a group."""
    store = place.as_store()
    users = replace(store.build_users, gid=place.builder)
    return replace(store, build_users=users, processes_of=lambda _: [])


@needs_root
@pytest.mark.parametrize("form", EVERY_FORM[:4])
def test_what_nix_had_made_its_own_before_it_was_cut_off_goes_as_well(
    form: Form, place: ThrowawayStore
) -> None:
    made = form(place)
    for top, directories, files in os.walk(place.path(made.path.base_name)):
        for name in [".", *directories, *files]:
            os.lchown(f"{top}/{name}", 0, 0)
    os.chmod(place.path(made.path.base_name), 0o555)  # noqa: S103 - as Nix makes it
    # Root has many processes, and none of them counts.
    store = replace(with_build_users(place), processes_of=host.processes_of)
    assert run(place, made.path.base_name, store=store)[-1].status == "removed"


@needs_root
@pytest.mark.parametrize("form", EVERY_FORM[4:])
def test_what_root_has_at_a_known_path_may_be_a_copy_and_stays(
    form: Form, place: ThrowawayStore
) -> None:
    made = form(place)
    os.chown(place.path(made.path.base_name), 0, 0)
    (outcome,) = run(place, made.path.base_name, store=with_build_users(place))
    assert outcome.status == "kept"
    assert "copy in progress" in outcome.reasons[0]


@needs_root
@pytest.mark.parametrize("name", ["foo.tmp", "foo.check", "foo.old-1-2", "foo.drv.chroot"])
def test_an_output_may_be_called_like_nix_own(name: str, place: ThrowawayStore) -> None:
    path = place.strand(place.add_derivation(name))
    assert run(place, path.base_name, store=alone(place))[-1].status == "removed"
