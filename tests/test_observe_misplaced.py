# SPDX-License-Identifier: MIT
"""A store that lies elsewhere than its paths say is not judged by names: it is refused, and why."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from command import PROGRAM, Desk, open_desk, report, run
from storewarden.observe import misplaced
from storewarden.store.paths import StoreDir
from storewarden.throwaway import ThrowawayStore

REFUSED = "a store that lies elsewhere than its paths say is not supported"


@pytest.fixture
def desk(place: ThrowawayStore, tmp_path: Path) -> Desk:
    """A chroot store, as `local?root=DIR` makes it, with something stranded in it."""
    place.strand(place.add_derivation("hello"))
    with closing(sqlite3.connect(f"{place.state_dir}/db/db.sqlite")) as database, database:
        query = "UPDATE ValidPaths SET path = replace(path, ?, '/nix/store')"
        database.execute(query, (place.store_dir.path,))
    return open_desk(place, tmp_path)


def test_it_is_neither_swept_nor_explained_nor_are_its_locks_told(desk: Desk) -> None:
    before = desk.names()
    path = desk.place.path(desk.place.invent("valid-0").base_name)
    rest = desk.surroundings()
    for words in ("scan", "--yes"), ("explain", path), ("locks",):
        options = rest if words[0] == "scan" else [*rest[: rest.index("--audit-log")], *rest[-2:]]
        done = run([*PROGRAM, words[0], *options, *words[1:]])
        assert (done.returncode, done.stdout) == (3, ""), words
        assert REFUSED in done.stderr
        assert (
            f"has its paths in /nix/store, and none in {desk.place.store_dir.path}" in done.stderr
        )
    assert desk.names() == before


def test_a_build_that_fails_in_it_is_not_run_again(desk: Desk) -> None:
    [output] = [n for n in desk.names() if n.endswith("-hello")]
    denied = f"mkdir: cannot create directory '{desk.place.path(output)}/x': Permission denied"
    script = f'echo run >> {desk.directory}/runs; echo "{denied}" >&2; exit 7'
    done = run([*PROGRAM, "run", *desk.surroundings(), "--", "sh", "-c", script])
    assert done.returncode == 7
    assert REFUSED in done.stderr
    assert Path(desk.directory, "runs").read_text(encoding="ascii") == "run\n"
    assert output in desk.names()


def test_the_doctor_tells_it(desk: Desk) -> None:
    config = Path(desk.directory, "config.toml")
    config.write_text(
        f'store-dir = "{desk.place.store_dir.path}"\nstate-dir = "{desk.place.state_dir}"\n'
        f'nix = "{desk.nix}"\n',
        encoding="utf-8",
    )
    found = report(run([*PROGRAM, "doctor", "--json", "--config", str(config)]))["diagnoses"]
    [told] = [one for one in found if one["name"] == "database"]
    assert told["severity"] == "problem"
    assert REFUSED in told["title"]


def test_a_store_in_its_place_one_without_a_path_and_one_without_a_database_are_not_meant(
    place: ThrowawayStore, tmp_path: Path
) -> None:
    assert misplaced(place.state_dir, place.store_dir) == ""
    assert misplaced(f"{tmp_path}/absent", place.store_dir) == ""
    empty = ThrowawayStore.create(f"{tmp_path}/empty")
    assert misplaced(empty.state_dir, empty.store_dir) == ""


@pytest.mark.parametrize("other", ["/nix/stor", "/nix/store2", "/nix/store-", "/"])
def test_a_directory_whose_name_only_begins_alike_is_another(
    place: ThrowawayStore, other: str
) -> None:
    with closing(sqlite3.connect(f"{place.state_dir}/db/db.sqlite")) as database, database:
        query = "UPDATE ValidPaths SET path = replace(path, ?, ?)"
        database.execute(query, (place.store_dir.path, os.path.normpath(other)))
    assert misplaced(place.state_dir, StoreDir("/nix/store"))
