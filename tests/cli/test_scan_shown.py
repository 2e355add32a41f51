# SPDX-License-Identifier: MIT
"""What people and programs are shown: names escaped, sizes and ages readable, JSON as promised."""

from dataclasses import replace
from typing import Any

import pytest

from json_documents import checked
from storewarden.claims import Judgement, Verdict
from storewarden.cli.findings import MOST, sweep_json, sweep_lines
from storewarden.cli.scan import done_line, outcome_line
from storewarden.protocol import Outcome, Status
from storewarden.scan import sweep
from storewarden.store.paths import StoreDir, output_lock
from storewarden.throwaway import ThrowawayStore
from sweeps import BEST

STORE = StoreDir("/nix/store")
SAYS = {Verdict.REMOVABLE: "can go", Verdict.CANDIDATE: "looks dead; root must confirm"}
TOLD = {Verdict.REMOVABLE: "can go", Verdict.CANDIDATE: "look dead; root must confirm"}


def document(place: ThrowawayStore, outcomes: list[Outcome] | None = None) -> Any:  # noqa: ANN401
    """The JSON of a sweep, parsed."""
    store = place.as_store()
    return checked(sweep_json(sweep(store), store, outcomes), "scan")


def test_the_json_of_a_sweep_is_as_promised(place: ThrowawayStore) -> None:
    derivation = place.add_derivation("hello-2.12")
    output = place.strand(derivation)
    place.register(place.invent("lost"))
    shape = document(place)
    assert {key: type(value) for key, value in shape.items()} == {
        "version": int,
        "storeDir": str,
        "stateDir": str,
        "summary": dict,
        "findings": list,
        "notes": list,
    }
    assert shape["summary"]["removable"] + shape["summary"]["candidate"] == 2
    assert (shape["summary"]["kept"], shape["summary"]["reported"]) == (0, 1)
    assert (shape["version"], shape["storeDir"]) == (1, place.store_dir.path)
    by_path = {found["path"]: found for found in shape["findings"]}
    found = by_path[place.path(output.base_name)]
    assert isinstance(found.pop("ageSeconds"), int)
    assert found.pop("sizeBytes") > 0
    assert found.pop("verdict") in {"removable", "candidate"}
    assert found.pop("owner").keys() == {"uid", "gid", "name"}
    (lock,) = found.pop("locks")
    assert lock["path"] == place.path(output_lock(derivation, "out"))
    assert (lock["held"] in {"no", "unknown"}, lock["holder"]) == (True, None)
    assert all(isinstance(reason, str) for reason in found.pop("reasons"))
    assert found == {
        "path": place.path(output.base_name),
        "kind": "output",
        "deriver": place.path(derivation.base_name),
        "output": "out",
        "sizeComplete": True,
    }


def test_what_is_missing_has_neither_owner_nor_age_nor_size(place: ThrowawayStore) -> None:
    place.register(place.invent("lost"))
    (found,) = document(place)["findings"]
    absent = ("owner", "ageSeconds", "deriver", "output", "sizeBytes")
    assert [found[key] for key in absent] == [None] * 5
    assert (found["kind"], found["verdict"], found["locks"]) == ("missing", "keep", [])


def test_outcomes_are_told_only_where_removal_was_asked_for(place: ThrowawayStore) -> None:
    output = place.strand(place.add_derivation("hello-2.12"))
    done = [Outcome(output.base_name, Status.REMOVED, ("a",), files=1, directories=2, bytes=3)]
    assert "outcomes" not in document(place)
    assert document(place, [])["outcomes"] == []
    assert document(place, done)["outcomes"] == [
        {
            "path": place.path(output.base_name),
            "kind": "output",
            "status": "removed",
            "reasons": ["a"],
            "files": 1,
            "directories": 2,
            "bytes": 3,
        }
    ]


def test_every_finding_is_told_with_kind_owner_age_and_reason(place: ThrowawayStore) -> None:
    derivation = place.add_derivation("hello-2.12")
    output = place.strand(derivation)
    store = place.as_store()
    text = "\n".join(sweep_lines(sweep(store), store))
    path, verdict = place.path(output.base_name), SAYS[BEST]
    said = f"{path} {verdict}: output of {derivation.base_name} (out)"
    assert said in " ".join(text.split())
    assert f"uid {place.builder}" in text
    assert "last changed" in text
    assert text.startswith(f"2 found in {place.store_dir.path}\n  2 {TOLD[BEST]}: 1 lock file, 1 ")


def test_a_size_that_was_not_measured_to_its_end_is_told_as_such(place: ThrowawayStore) -> None:
    place.strand(place.add_derivation("hello-2.12"))
    store = place.as_store()
    swept = sweep(store)
    assert " 1 output, up to " in "\n".join(sweep_lines(swept, store))
    part = replace(swept, findings=tuple(replace(f, size_complete=False) for f in swept.findings))
    assert " 1 output, at least " in "\n".join(sweep_lines(part, store))


def test_an_empty_sweep_says_so(place: ThrowawayStore) -> None:
    store = place.as_store()
    assert list(sweep_lines(sweep(store), store)) == [
        f"nothing unregistered found in {place.store_dir.path}"
    ]


def test_hostile_names_cannot_write_to_the_terminal(place: ThrowawayStore) -> None:
    for name in ("a\x1b]0;owned\x07", "b\nnothing unregistered found", "c\u202e"):
        place.add_file(name)
    store = place.as_store()
    swept = sweep(store)
    swept = replace(
        swept, findings=tuple(replace(f, owner_name="x\x1b[2J") for f in swept.findings)
    )
    for line in sweep_lines(swept, store):
        assert line.isascii()
        assert line.isprintable()


def test_what_is_only_reported_is_counted_apart_from_what_is_kept(place: ThrowawayStore) -> None:
    place.add_file(".DS_Store")
    derivation = place.add_derivation("live-3.0")
    place.strand(derivation)
    place.hold(place.path(output_lock(derivation, "out")))
    store = place.as_store()
    found = sweep(store)
    lines = list(sweep_lines(found, store))
    kept = sum(f.judgement.verdict is Verdict.KEEP for f in found.findings) - 1
    assert lines[0] == f"3 found in {place.store_dir.path}"
    assert f"  {kept} kept: 1 lock file, 1 output" in lines or not kept
    assert "  1 only reported: 1 foreign entry" in lines


def test_of_many_the_counts_come_first_then_ten_and_how_to_see_the_rest(
    place: ThrowawayStore,
) -> None:
    for number in range(60):
        place.strand(place.add_derivation(f"many-{number}"))
    store = place.as_store()
    lines = list(sweep_lines(sweep(store), store, most=MOST))
    assert lines[0] == f"120 found in {place.store_dir.path}"
    assert lines[1].startswith(f"  120 {TOLD[BEST]}: 60 lock files, 60 outputs, up to ")
    shown = [line for line in lines if line.startswith("/")]
    assert (len(shown), lines[-1]) == (MOST, "... 110 more: --all")
    assert not [line for line in shown if line.endswith(".lock")], "outputs say more than locks"
    assert len(lines) < 45


def test_reasons_are_counted_without_what_was_seen_of_each_entry(place: ThrowawayStore) -> None:
    for number in range(3):
        place.strand(place.add_derivation(f"many-{number}"))
    store = place.as_store()
    swept = sweep(store)
    odd = [
        Judgement(Verdict.KEEP, (f"it changed too recently ({n} s ago)",))
        for n in range(len(swept.findings))
    ]
    pairs = zip(swept.findings, odd, strict=True)
    swept = replace(swept, findings=tuple(replace(f, judgement=j) for f, j in pairs))
    lines = list(sweep_lines(swept, store))
    assert lines[1:3] == ["  6 kept: 3 lock files, 3 outputs", "      it changed too recently"]
    assert "        it changed too recently (2 s ago)" in lines


def test_the_end_of_a_removal_is_told_in_one_line() -> None:
    gone = Outcome("a", Status.REMOVED, files=3, bytes=2048)
    assert done_line([gone, gone]) == "2 removed (4.0 KiB freed)"
    others = [Outcome("b", status) for status in (Status.KEPT, Status.FAILED, Status.KEPT)]
    assert done_line([gone, *others]) == "1 removed (2.0 KiB freed), 2 kept, 1 failed"
    assert done_line(others) == "0 removed (0 B freed), 2 kept, 1 failed"


@pytest.mark.parametrize("status", list(Status))
def test_every_status_has_its_words_in_one_line(status: Status) -> None:
    outcome = Outcome("x\x1b", status, ("one\n", "two"), files=3, bytes=2048)
    line = outcome_line(outcome, STORE)
    assert line.isprintable()
    assert "/nix/store/x\\x1b" in line
    assert line.endswith(": one\\n; two")
    assert ("2.0 KiB" in line) == (status is Status.REMOVED)
