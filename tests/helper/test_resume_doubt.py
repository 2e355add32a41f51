# SPDX-License-Identifier: MIT
"""What the next run finds may be wanted again, or may not be ours at all."""

import errno
import os
import subprocess
from collections.abc import Callable, Collection
from dataclasses import replace

import pytest

from helper.bench import (
    at,
    audit_is_whole,
    live_temp_root,
    log_of,
    names,
    picture,
    records,
    run,
)
from helper.child import kill_self, killed, needs_root
from helper.trees import left_private, write
from storewarden.audit import Intent
from storewarden.audit_reading import verify
from storewarden.helper.audit import open_log
from storewarden.store.entries import PRIVATE_PREFIX, EntryKind
from storewarden.store.paths import StorePath, output_lock, path_lock
from storewarden.store.store import NO, Fact, Known
from storewarden.throwaway import ThrowawayStore
from sweeps import alone, holding


@pytest.fixture
def before(place: ThrowawayStore, scratch: StorePath) -> dict[bytes, object]:
    """What lay there before a run was killed that had just taken it."""
    seen: dict[bytes, object] = {**picture(place.path(scratch.base_name))}
    killed(lambda: run(place, scratch.base_name, checkpoint=at("taken", kill_self)))
    assert scratch.base_name not in names(place)
    return seen


def test_what_is_valid_meanwhile_is_put_back_whole(
    place: ThrowawayStore, scratch: StorePath, before: dict[bytes, object]
) -> None:
    place.register(scratch)
    (outcome,) = run(place)
    assert outcome.status == "kept"
    assert "put back" in outcome.reasons[0]
    assert picture(place.path(scratch.base_name)) == before
    assert not left_private(place)
    assert audit_is_whole(place)


def test_what_is_valid_meanwhile_is_put_back_also_where_its_locks_are_not_known(
    place: ThrowawayStore,
) -> None:
    stranger = place.invent("stranger")
    place.add_output(stranger)
    before = picture(place.path(stranger.base_name))
    take = at("taken", kill_self)
    killed(lambda: run(place, stranger.base_name, store=alone(place), checkpoint=take))
    assert stranger.base_name not in names(place)
    place.register(stranger)
    assert [outcome.status for outcome in run(place)] == ["kept"]
    assert picture(place.path(stranger.base_name)) == before
    assert audit_is_whole(place)


@pytest.mark.parametrize("witness", ["nix", "database"])
def test_one_witness_is_enough_to_put_it_back(
    witness: str, place: ThrowawayStore, scratch: StorePath, before: dict[bytes, object]
) -> None:
    said = Fact(Known.YES) if witness == "nix" else NO
    if witness == "database":
        place.register(scratch)
    store = replace(place.as_store(), ask_nix=lambda paths: dict.fromkeys(paths, said))
    (outcome,) = run(place, store=store)
    assert (outcome.status, "it is valid" in outcome.reasons[0]) == ("kept", True)
    assert picture(place.path(scratch.base_name)) == before


def test_who_uses_what_was_built_again_and_is_valid_does_not_stop_the_purge(
    place: ThrowawayStore, scratch: StorePath, before: dict[bytes, object]
) -> None:
    place.add_output(scratch)
    place.register(scratch)
    new = picture(place.path(scratch.base_name))
    assert before
    with live_temp_root(place, scratch):
        assert [outcome.status for outcome in run(place)] == ["removed"]
    assert picture(place.path(scratch.base_name)) == new
    assert not left_private(place)


def test_what_a_collector_takes_while_nix_is_asked_hurts_nobody(
    place: ThrowawayStore, scratch: StorePath, before: dict[bytes, object]
) -> None:
    (private,) = left_private(place)
    assert before

    def collect(paths: Collection[StorePath]) -> dict[StorePath, Fact]:
        subprocess.run(["rm", "-r", place.path(f"{private}/{scratch.base_name}")], check=True)
        return dict.fromkeys(paths, NO)

    store = replace(place.as_store(), ask_nix=collect)
    assert [outcome.status for outcome in run(place, store=store)] == ["removed"]
    assert not left_private(place)
    assert audit_is_whole(place)


def _nix_cannot_tell(place: ThrowawayStore) -> Callable[[], None]:
    del place
    return lambda: None


def _nix_says_nothing(place: ThrowawayStore) -> Callable[[], None]:
    del place
    return lambda: None


def _database_gone(place: ThrowawayStore) -> Callable[[], None]:
    path = f"{place.state_dir}/db/db.sqlite"
    os.rename(path, f"{path}.away")
    return lambda: os.rename(f"{path}.away", path)


@pytest.mark.parametrize("doubt", [_nix_cannot_tell, _nix_says_nothing, _database_gone])
def test_what_may_be_valid_waits_until_it_is_known(
    doubt: Callable[[ThrowawayStore], Callable[[], None]],
    place: ThrowawayStore,
    scratch: StorePath,
    before: dict[bytes, object],
) -> None:
    end = doubt(place)
    answer = Fact(Known.UNKNOWN) if doubt is _nix_cannot_tell else NO
    answers = {} if doubt is _nix_says_nothing else {scratch: answer}
    store = replace(place.as_store(), ask_nix=lambda _: answers)
    for _ in range(2):
        (outcome,) = run(place, store=store)
        assert (outcome.status, outcome.unproved) == ("kept", True)
        (private,) = left_private(place)
        assert f"whether it is valid cannot be told, so it waits in {private}" in outcome.reasons[0]
        waiting = picture(place.path(f"{private}/{scratch.base_name}"))
        assert list(waiting.values()) == list(before.values())
        assert verify_open(place) == 1
    end()
    assert [outcome.status for outcome in run(place)] == ["removed"]
    assert not left_private(place)
    assert audit_is_whole(place)


def verify_open(place: ThrowawayStore) -> int:
    """How many intents have no result yet, in a log that is in order."""
    verified = verify(log_of(place))
    assert not verified.problem
    return verified.open_intents


def test_a_new_build_at_its_place_is_left_alone(
    place: ThrowawayStore, scratch: StorePath, before: dict[bytes, object]
) -> None:
    place.add_output(scratch)
    write(f"{place.path(scratch.base_name)}/new")
    new = picture(place.path(scratch.base_name))
    assert before
    assert [outcome.status for outcome in run(place)] == ["removed"]
    assert picture(place.path(scratch.base_name)) == new
    assert not left_private(place)
    assert audit_is_whole(place)


@pytest.mark.parametrize("rooted", ["its path", "its derivation"])
def test_what_a_build_that_is_alive_may_have_gone_on_with_waits_for_its_end(
    rooted: str,
    place: ThrowawayStore,
    derivation: StorePath,
    scratch: StorePath,
    before: dict[bytes, object],
) -> None:
    # Its lock may have gone right before the move; who was killed after it had not looked.
    with live_temp_root(place, scratch if rooted == "its path" else derivation):
        (outcome,) = run(place)
        assert (outcome.status, outcome.unproved) == ("kept", True)
        assert "whether a build of it is alive (process 77) cannot be told" in outcome.reasons[0]
        (private,) = left_private(place)
        waiting = picture(place.path(f"{private}/{scratch.base_name}"))
        assert list(waiting.values()) == list(before.values())
        assert verify_open(place) == 1
    assert [outcome.status for outcome in run(place)] == ["removed"]


def test_what_no_intent_tells_of_is_purged_and_recorded(
    place: ThrowawayStore, scratch: StorePath, before: dict[bytes, object]
) -> None:
    assert before
    os.unlink(log_of(place))
    (outcome,) = run(place)
    assert (outcome.base_name, outcome.status) == (scratch.base_name, "removed")
    assert [record["name"] for record in records(place, "resumed")] == [scratch.base_name]
    assert not left_private(place)


def test_what_no_intent_tells_of_and_is_valid_is_put_back_and_recorded(
    place: ThrowawayStore, scratch: StorePath, before: dict[bytes, object]
) -> None:
    os.unlink(log_of(place))
    place.register(scratch)
    with holding(place.path(path_lock(scratch))):
        assert [outcome.status for outcome in run(place)] == ["failed"], "somebody copies it here"
    assert [outcome.status for outcome in run(place)] == ["kept"]
    assert picture(place.path(scratch.base_name)) == before
    assert [record["name"] for record in records(place, "resumed")] == [scratch.base_name]


def test_one_that_is_valid_is_put_back_from_among_many_that_are_dead(
    place: ThrowawayStore,
) -> None:
    private = place.path(f"{PRIVATE_PREFIX}1-0")
    os.mkdir(private, 0o700)
    valid = place.add_valid("valid")
    for number in range(20):  # it is neither the first nor the last to be found
        write(f"{private}/{place.invent(f'dead-{number}').base_name}")
        if number == 10:
            os.rename(place.path(valid.base_name), f"{private}/{valid.base_name}")
    (outcome,) = run(place)
    assert (outcome.base_name, outcome.status) == (valid.base_name, "kept")
    assert valid.base_name in names(place)
    assert [outcome.status for outcome in run(place)] == ["removed"]
    assert valid.base_name in names(place)
    assert not left_private(place)


def test_what_cannot_be_asked_about_waits_and_says_why(
    place: ThrowawayStore, scratch: StorePath, before: dict[bytes, object]
) -> None:
    def refused(_: Collection[StorePath]) -> dict[StorePath, Fact]:
        raise OSError(errno.EMFILE, "no descriptor left")

    (outcome,) = run(place, store=replace(place.as_store(), ask_nix=refused))
    assert (outcome.base_name, outcome.status) == (scratch.base_name, "failed")
    assert "no descriptor left" in outcome.reasons[0]
    (private,) = left_private(place)
    waiting = picture(place.path(f"{private}/{scratch.base_name}"))
    assert list(waiting.values()) == list(before.values())


def exchanged(place: ThrowawayStore, name: str, kind: EntryKind, *locks: str) -> None:
    """As who was killed leaves it that had taken another thing by that name than was proved."""
    private = f"{PRIVATE_PREFIX}1-0"
    os.mkdir(place.path(private), 0o700)
    place.add_output(StorePath(name))
    os.rename(place.path(name), place.path(f"{private}/{name}"))
    with open_log(log_of(place)) as log:
        log.append(Intent(name=name, kind=kind.value, locks=locks, private=private))


def test_another_chroot_than_was_proved_is_put_back_under_its_locks(
    place: ThrowawayStore, derivation: StorePath
) -> None:
    name, lock = f"{derivation.base_name}.chroot", output_lock(derivation, "out")
    exchanged(place, name, EntryKind.CHROOT, lock, "odd/name")
    with holding(place.path(lock)):
        assert [outcome.status for outcome in run(place)] == ["failed"]
    assert [outcome.status for outcome in run(place)] == ["kept"]
    assert name in names(place)


def test_another_than_was_proved_stays_where_its_locks_are_not_known_and_its_place_is_taken(
    place: ThrowawayStore,
) -> None:
    stranger = place.invent("stranger")
    exchanged(place, stranger.base_name, EntryKind.OUTPUT)
    place.add_output(stranger)
    place.register(stranger)
    assert [outcome.status for outcome in run(place)] == ["failed"]
    (private,) = left_private(place)
    assert os.listdir(place.path(private)) == [stranger.base_name]


def test_a_directory_that_an_intent_names_and_is_no_private_one_is_left_alone(
    place: ThrowawayStore, scratch: StorePath
) -> None:
    os.mkdir(place.path("tmp-1-0"), 0o700)
    with open_log(log_of(place)) as log:
        log.append(Intent(name=scratch.base_name, private="tmp-1-0"))
    run(place)
    assert "tmp-1-0" in names(place)


def test_a_private_directory_in_use_is_left_to_its_owner(
    place: ThrowawayStore, before: dict[bytes, object]
) -> None:
    (private,) = left_private(place)
    waiting = picture(place.path(private))
    assert len(waiting) == len(before) + 1
    with holding(place.path(private)):
        assert run(place) == []
        assert picture(place.path(private)) == waiting
    assert [outcome.status for outcome in run(place)] == ["removed"]


def _of_another(path: str) -> None:
    os.chown(path, 65534, 65534)


def _open_to_the_group(path: str) -> None:
    os.chmod(path, 0o710)  # noqa: S103 - wrong on purpose


@pytest.mark.parametrize(
    "change", [pytest.param(_of_another, marks=needs_root), _open_to_the_group]
)
def test_a_private_directory_that_is_not_ours_is_left_alone(
    change: Callable[[str], None], place: ThrowawayStore, scratch: StorePath
) -> None:
    path = place.path(f"{PRIVATE_PREFIX}1-0")
    os.mkdir(path, 0o700)
    write(f"{path}/{scratch.base_name}")
    write(f"{path}/0123456789abcdef-0")
    change(path)
    before = picture(place.store_dir.path)
    assert run(place) == []
    assert picture(place.store_dir.path) == before


def test_a_directory_of_ours_that_is_not_called_so_is_left_alone(
    place: ThrowawayStore, scratch: StorePath
) -> None:
    # A chroot of Nix's, or its own `tmp-*`, is as closed to others.
    for name in ("tmp-1-0", f"{place.invent('y.drv').base_name}.chroot"):
        os.mkdir(place.path(name), 0o700)
        write(f"{place.path(name)}/{scratch.base_name}")
        write(f"{place.path(name)}/0123456789abcdef-0")
    before = picture(place.store_dir.path)
    assert run(place) == []
    assert picture(place.store_dir.path) == before


def test_a_link_named_like_a_private_directory_leads_nowhere(
    place: ThrowawayStore, scratch: StorePath
) -> None:
    victim = f"{place.state_dir}/victim"
    os.mkdir(victim, 0o700)
    write(f"{victim}/{scratch.base_name}")
    os.symlink(victim, place.path(f"{PRIVATE_PREFIX}1-0"))
    assert run(place) == []
    assert os.listdir(victim) == [scratch.base_name]
    assert os.path.islink(place.path(f"{PRIVATE_PREFIX}1-0"))


def test_an_empty_private_directory_is_removed_without_a_word(place: ThrowawayStore) -> None:
    os.mkdir(place.path(f"{PRIVATE_PREFIX}1-0"), 0o700)
    assert run(place) == []
    assert not left_private(place)
    assert records(place) == []
