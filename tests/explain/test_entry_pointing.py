# SPDX-License-Identifier: MIT
"""What a user types, and the entry that it leads to."""

import os
from pathlib import Path

import pytest

from storewarden.explain.entry import NotInStoreError, Pointed, point
from storewarden.throwaway import ThrowawayStore


def test_a_full_path_a_base_name_and_what_lies_below_lead_to_the_entry(
    place: ThrowawayStore,
) -> None:
    name = place.invent("hello-2.12").base_name
    full = place.path(name)
    assert point(full, place.store_dir) == Pointed(full, name)
    assert point(name, place.store_dir) == Pointed(name, name)
    below = f"{full}//bin/../bin/hello"
    assert point(below, place.store_dir) == Pointed(below, name, "bin/hello")


@pytest.mark.parametrize("suffix", [".lock", ".drv", ".drv.out.lock", ".drv.chroot", ".check"])
def test_names_beside_a_path_are_entries_also_when_they_are_not_there(
    place: ThrowawayStore, suffix: str
) -> None:
    name = place.invent("x").base_name + suffix
    assert point(name, place.store_dir).base_name == name


def test_a_link_is_followed_until_it_is_in_the_store_and_no_further(
    place: ThrowawayStore, tmp_path: Path
) -> None:
    outer = place.invent("env").base_name
    os.mkdir(place.path(outer))
    os.symlink("/nowhere", f"{place.path(outer)}/bin")
    os.symlink(f"{place.path(outer)}/bin", tmp_path / "second")
    os.symlink("second", tmp_path / "result")
    found = point(f"{tmp_path}/result/hello", place.store_dir)
    assert (found.base_name, found.inside) == (outer, "bin/hello")
    assert found.through == (
        f"{tmp_path}/result -> second",
        f"{tmp_path}/second -> {place.path(outer)}/bin",
    )


def test_a_link_may_be_named_from_where_the_user_stands(
    place: ThrowawayStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = place.invent("valid-1").base_name
    os.symlink(place.path(name), tmp_path / "result")
    os.mkdir(tmp_path / "below")
    monkeypatch.chdir(tmp_path / "below")
    assert point("../result", place.store_dir).base_name == name
    monkeypatch.chdir(tmp_path)
    assert point("result", place.store_dir).base_name == name


def test_a_strange_entry_is_found_by_its_name_if_it_is_there(place: ThrowawayStore) -> None:
    place.add_file("strange")
    assert point("strange", place.store_dir).base_name == "strange"
    assert point(place.path("never"), place.store_dir).base_name == "never"


def test_a_file_below_links_is_an_entry_of_its_own(place: ThrowawayStore) -> None:
    assert point(place.path(".links/abc"), place.store_dir).base_name == ".links/abc"
    assert point(place.path(".links"), place.store_dir).base_name == ".links"


@pytest.mark.parametrize(
    "asked", ["/etc", "/etc/none", "hello", "./none", "", ".", "/", "nixpkgs#x"]
)
def test_what_leads_to_nothing_in_the_store_is_refused_in_one_line(
    place: ThrowawayStore, asked: str
) -> None:
    with pytest.raises(NotInStoreError) as refused:
        point(asked, place.store_dir)
    assert place.store_dir.path in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_store_directory_itself_is_no_entry(place: ThrowawayStore) -> None:
    with pytest.raises(NotInStoreError, match="storewarden scan"):
        point(place.store_dir.path + "/", place.store_dir)


def test_from_a_directory_that_is_gone_only_full_paths_and_base_names_lead_somewhere(
    place: ThrowawayStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    try:
        with pytest.raises(NotInStoreError, match="the working directory is gone"):
            point("./x", place.store_dir)
        name = place.invent("x").base_name
        assert point(place.path(name), place.store_dir).base_name == name
        assert point(name, place.store_dir).base_name == name
    finally:
        os.chdir(tmp_path)  # what undoes `chdir` asks where it is


def test_links_that_lead_in_a_circle_are_refused(place: ThrowawayStore, tmp_path: Path) -> None:
    os.symlink("b", tmp_path / "a")
    os.symlink("a", tmp_path / "b")
    with pytest.raises(NotInStoreError):
        point(f"{tmp_path}/a", place.store_dir)
