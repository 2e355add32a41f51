# SPDX-License-Identifier: MIT
"""Where a path comes from by what the database knows, and the locks that cover it."""

import os

import pytest

from storewarden.store.derivation import find_origins
from storewarden.store.paths import (
    Deriver,
    Origin,
    StoreDir,
    StorePath,
    output_lock,
    path_lock,
    redirect_path,
    scratch_path,
)
from storewarden.throwaway import ThrowawayStore
from sweeps import origins_of
from tables import BUILD_TRACE, REALISATIONS, execute, know_output, realise

REST = '[],["/nix/store/x"],"x86_64-linux","/bin/sh",["-c","echo"],[("name","x")])'


def origin_of(place: ThrowawayStore, store_fd: int, path: StorePath) -> Origin | None:
    names = os.listdir(place.store_dir.path)
    return origins_of(place.as_store(), store_fd, [path], names).get(path)


@pytest.mark.parametrize(
    ("derivation", "path", "redirect"),
    [
        (
            "n5yrhpd3w98lga8ypbfs79xfld9qjf8f-form2ia.drv",
            "spwwxg990ppv5bjm52g9fdrqb6sr0xrl-form2ia",
            "9pxsnyjcmbylp54jqgkqgimqix4zxpl2-form2ia",
        ),
        (
            "vawn8nagrr0l7v1x6r167n63j6s1bjxq-form2ca.drv",
            "77i2dnff7hwfcx7alkyidf7v8zxfdjmn-form2ca",
            "crwi54pgjxg3nr5xla7gfvcq7z555pjj-form2ca",
        ),
    ],
)
def test_a_redirect_is_what_real_nix_made_it(derivation: str, path: str, redirect: str) -> None:
    # Written by nix-build --check of Nix 2.8.0.
    found = redirect_path(StorePath(derivation), StorePath(path), StoreDir("/nix/store"))
    assert found == StorePath(redirect)


def test_a_scratch_path_is_covered_by_the_lock_of_its_output(
    place: ThrowawayStore, store_fd: int
) -> None:
    derivation = place.add_derivation("x")
    path = place.strand(derivation, "dev")
    locks = tuple(sorted((path_lock(path), output_lock(derivation, "dev"))))
    wanted = Origin(Deriver(derivation, "dev"), locks, scratch=True)
    assert origin_of(place, store_fd, path) == wanted


def test_what_nix_copies_a_scratch_path_to_is_covered_like_it(
    place: ThrowawayStore, store_fd: int
) -> None:
    derivation = place.add_derivation("x")
    path = place.strand(derivation)
    rewritten = StorePath(f"{path.base_name}.tmp")
    place.add_output(rewritten)
    assert origin_of(place, store_fd, rewritten) == origin_of(place, store_fd, path)


@pytest.mark.parametrize("name", [".tmp", "..tmp"])
def test_what_is_called_tmp_and_nothing_else_is_no_copy(
    name: str, place: ThrowawayStore, store_fd: int
) -> None:
    place.add_derivation("x")
    path = place.invent(name)
    place.add_output(path)
    assert origin_of(place, store_fd, path) is None


def test_a_derivation_called_tmp_has_a_scratch_path_of_its_own(
    place: ThrowawayStore, store_fd: int
) -> None:
    derivation = place.add_derivation("x.tmp")
    found = origin_of(place, store_fd, place.strand(derivation))
    assert found is not None
    assert found.deriver == Deriver(derivation, "out")


def test_a_redirect_of_a_known_path_is_covered_by_the_lock_of_that_path(
    place: ThrowawayStore, store_fd: int
) -> None:
    derivation, valid = place.add_derivation("x"), place.add_valid("x")
    know_output(place, derivation, "out", valid)
    path = redirect_path(derivation, valid, place.store_dir)
    locks = tuple(sorted((path_lock(path), path_lock(valid))))
    found = origin_of(place, store_fd, path)
    assert found == Origin(Deriver(derivation, "out"), locks, scratch=True, replaced=valid)
    assert found.rooted == (derivation, valid)


@pytest.mark.parametrize("table", ["Realisations", "BuildTraceV3"])
def test_a_redirect_of_a_floating_path_is_covered_by_the_locks_of_all_its_outputs(
    place: ThrowawayStore, store_fd: int, table: str
) -> None:
    derivation, valid = place.invent("x.drv"), place.add_valid("x-dev")
    outputs = '("dev","","r:sha256",""),("out","","r:sha256","")'
    with open(place.path(derivation.base_name), "w", encoding="utf-8") as file:
        file.write(f"Derive([{outputs}],{REST}")
    place.register(derivation)
    realise(place, table, derivation, "dev", valid)
    path = redirect_path(derivation, valid, place.store_dir)
    floating = {output_lock(derivation, "out"), output_lock(derivation, "dev")}
    locks = {path_lock(path), path_lock(valid)} | floating
    found = origin_of(place, store_fd, path)
    assert found is not None
    assert (found.deriver, set(found.locks)) == (Deriver(derivation, "dev"), locks)
    assert (found.scratch, found.replaced) == (True, valid)


def test_where_the_derivation_cannot_be_read_the_lock_of_that_output_covers_its_redirect(
    place: ThrowawayStore, store_fd: int
) -> None:
    derivation, valid = place.invent("x.drv"), place.add_valid("x")
    realise(place, "BuildTraceV3", derivation, "out", valid)
    path = redirect_path(derivation, valid, place.store_dir)
    found = origin_of(place, store_fd, path)
    assert found is not None
    wanted = {path_lock(path), path_lock(valid), output_lock(derivation, "out")}
    assert set(found.locks) == wanted


def test_a_floating_output_that_was_built_before_is_covered_by_all_that_would_build_it(
    place: ThrowawayStore, store_fd: int
) -> None:
    # From 2.35 on the realisation outlives the path, and the next build writes to the path itself.
    path, first = place.invent("x"), place.invent("x.drv")
    second = StorePath(f"{'1c' * 16}-x.drv")
    place.add_output(path)
    for derivation in (first, second):
        realise(place, "BuildTraceV3", derivation, "out", path)
    found = origin_of(place, store_fd, path)
    assert found is not None
    wanted = {path_lock(path), output_lock(first, "out"), output_lock(second, "out")}
    assert set(found.locks) == wanted
    assert not found.scratch, "what is root's there may be on its way to be registered"
    assert not found.proved, "any client of nix-daemon can add to that table"


def test_of_two_tables_that_tell_of_a_redirect_no_lock_is_left_out(
    place: ThrowawayStore, store_fd: int
) -> None:
    # With ca-derivations on, Nix records what it builds input-addressed as realised, too.
    derivation, valid = place.add_derivation("x"), place.add_valid("x")
    know_output(place, derivation, "out", valid)
    for table in ("Realisations", "BuildTraceV3"):
        realise(place, table, derivation, "out", valid)
    path = redirect_path(derivation, valid, place.store_dir)
    found = origin_of(place, store_fd, path)
    assert found is not None
    assert {path_lock(path), path_lock(valid), output_lock(derivation, "out")} <= set(found.locks)
    assert found.proved


@pytest.mark.parametrize("output", ["zzz", "q/passwd", "a\0b", "\udcff", "", "o" * 300])
@pytest.mark.parametrize("table", ["Realisations", "BuildTraceV3"])
def test_what_a_client_has_had_recorded_of_an_outputs_name_becomes_no_part_of_a_locks(
    place: ThrowawayStore, store_fd: int, table: str, output: str
) -> None:
    # daemon.cc records what any client says, unsigned, up to Nix 2.35.
    derivation, valid = place.add_derivation("x"), place.add_valid("x")
    told = place.invent("y")
    realise(place, table, derivation, output, valid)
    realise(place, "BuildTraceV3", derivation, output, told)
    path = redirect_path(derivation, valid, place.store_dir)
    found = origin_of(place, store_fd, path)
    assert found is not None
    assert set(found.locks) == {path_lock(path), path_lock(valid), output_lock(derivation, "out")}
    assert origin_of(place, store_fd, told) is None, "its name is none of an output of that"


@pytest.mark.parametrize("table", ["DerivationOutputs", "Realisations"])
def test_a_planted_name_of_another_output_hides_no_redirect(
    place: ThrowawayStore, store_fd: int, table: str
) -> None:
    derivation, valid = place.add_derivation("foo"), place.add_valid("foo")
    if table == "DerivationOutputs":
        know_output(place, derivation, "out", valid)
    else:
        realise(place, table, derivation, "out", valid)
    path, planted = redirect_path(derivation, valid, place.store_dir), place.invent("foo-out")
    names = os.listdir(place.store_dir.path)
    found = origins_of(place.as_store(), store_fd, [planted, path], names)
    assert found.keys() == {path}


def test_an_output_of_a_known_path_has_no_lock_that_is_called_after_it(
    place: ThrowawayStore, store_fd: int
) -> None:
    derivation, valid = place.invent("x.drv"), place.add_valid("x")
    known = f'("dev","{place.path(place.invent("x-dev").base_name)}","","")'
    with open(place.path(derivation.base_name), "w", encoding="utf-8") as file:
        file.write(f'Derive([{known},("out","{place.path(valid.base_name)}","","")],{REST}')
    place.register(derivation)
    realise(place, "BuildTraceV3", derivation, "out", valid)
    path = redirect_path(derivation, valid, place.store_dir)
    found = origin_of(place, store_fd, path)
    assert found is not None
    assert set(found.locks) == {path_lock(path), path_lock(valid), output_lock(derivation, "out")}


def test_of_two_that_would_build_a_path_the_one_that_no_client_can_make_up_is_its_deriver(
    place: ThrowawayStore, store_fd: int
) -> None:
    sure, traced = place.add_derivation("x"), StorePath(f"{'1c' * 16}-x.drv")
    path = place.invent("x")
    know_output(place, sure, "out", path)
    realise(place, "BuildTraceV3", traced, "out", path)
    locks = tuple(sorted((path_lock(path), output_lock(traced, "out"))))
    wanted = Origin(Deriver(sure, "out"), locks, scratch=False)
    assert origin_of(place, store_fd, path) == wanted


def test_a_path_that_is_known_before_its_build_is_covered_by_its_own_lock(
    place: ThrowawayStore, store_fd: int
) -> None:
    derivation, path = place.add_derivation("x"), place.invent("x")
    know_output(place, derivation, "out", path)
    wanted = Origin(Deriver(derivation, "out"), (path_lock(path),), scratch=False)
    assert origin_of(place, store_fd, path) == wanted


def test_without_the_database_a_scratch_path_is_found_by_its_hash_and_nothing_else(
    place: ThrowawayStore, store_fd: int
) -> None:
    derivation, known = place.add_derivation("x"), place.invent("x")
    know_output(place, derivation, "out", known)
    scratch, names = place.strand(derivation), os.listdir(place.store_dir.path)
    found = find_origins(place.as_store(), store_fd, [scratch, known], names, None)
    assert {path: origin.deriver for path, origin in found.items()} == {
        scratch: Deriver(derivation, "out")
    }


def test_a_path_whose_output_would_have_no_name_has_no_origin(
    place: ThrowawayStore, store_fd: int
) -> None:
    derivation, path = place.add_derivation("x"), place.invent("x-")
    know_output(place, derivation, "out", path)
    assert origin_of(place, store_fd, path) is None


def test_a_path_of_no_known_derivation_has_no_origin(place: ThrowawayStore, store_fd: int) -> None:
    place.add_derivation("x")
    execute(place, REALISATIONS)
    execute(place, BUILD_TRACE)
    assert origin_of(place, store_fd, place.invent("x")) is None


def test_a_row_of_another_store_or_of_no_path_leads_nowhere(
    place: ThrowawayStore, store_fd: int
) -> None:
    derivation, path = place.add_derivation("x"), place.invent("x")
    execute(place, BUILD_TRACE)
    insert = "INSERT INTO BuildTraceV3 (drvPath, outputName, outputPath) VALUES (?, 'out', ?)"
    for drv, output in (
        ("no path", place.path(path.base_name)),
        (derivation.base_name, f"/elsewhere/{path.base_name}"),
        ("", ""),
    ):
        execute(place, insert, drv, output)
    assert origin_of(place, store_fd, path) is None


def test_an_origin_is_never_found_for_a_wrong_hash(place: ThrowawayStore, store_fd: int) -> None:
    derivation = place.add_derivation("x")
    right = scratch_path(derivation, "out", place.store_dir)
    wrong = StorePath(f"{right.base_name[:31]}{'0' if right.base_name[31] != '0' else '1'}-x")
    assert origin_of(place, store_fd, right) is not None
    assert origin_of(place, store_fd, wrong) is None


def test_an_output_in_the_database_that_its_derivation_could_not_have_hides_no_other(
    place: ThrowawayStore, store_fd: int
) -> None:
    derivation = place.add_derivation("x")
    odd, path = place.invent("y"), place.invent("x-dev")
    for number, known in enumerate((odd, path)):
        know_output(place, derivation, f"output-{number}", known)
        place.add_valid(known.name)
    redirects = [redirect_path(derivation, one, place.store_dir) for one in (odd, path)]
    for redirect in redirects:
        place.add_output(redirect)
    found = [origin_of(place, store_fd, redirect) for redirect in redirects]
    locks = tuple(sorted((path_lock(redirects[1]), path_lock(path))))
    wanted = Origin(Deriver(derivation, "dev"), locks, scratch=True, replaced=path)
    assert found == [None, wanted]
