# SPDX-License-Identifier: MIT
"""The schemas of what commands print; what is printed meets them wherever a test reads it."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from grammar import commands
from json_documents import LOG, SCHEMAS, checked, schema, schema_name
from storewarden.claims import PROOF, Verdict
from storewarden.cli.service import document_of
from storewarden.config import KEYS, Config, Mode
from storewarden.daemon.status import PLACES
from storewarden.doctor.patient import Severity
from storewarden.explain.buildlog import MOST_PATHS
from storewarden.explain.entry import What
from storewarden.explain.locks import Role
from storewarden.protocol import Status
from storewarden.readable import JSON_VERSION
from storewarden.setup.files import State
from storewarden.store.entries import EntryKind
from storewarden.store.store import Known

NAMES = sorted(name.removesuffix(".json") for name in os.listdir(SCHEMAS))
WITH_JSON = [one for one in commands() if "--json" in one.options]
DOCUMENTED = Path(SCHEMAS, "..", "json.md").read_text(encoding="utf-8")


def _parts(part: object) -> Iterator[dict[str, Any]]:
    """Each object in a schema, itself first."""
    if isinstance(part, dict):
        yield part
    if isinstance(part, dict | list):
        for inside in part.values() if isinstance(part, dict) else part:
            yield from _parts(inside)


def test_each_command_that_prints_json_has_a_schema_and_there_is_no_other() -> None:
    assert sorted([*(schema_name(one.words) for one in WITH_JSON), LOG]) == NAMES
    for one in WITH_JSON:
        assert schema(schema_name(one.words))["title"].startswith(f"storewarden {one.name} --json")


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_is_one_and_of_the_version_that_is_printed(name: str) -> None:
    Draft202012Validator.check_schema(schema(name))
    assert schema(name)["$schema"] == Draft202012Validator.META_SCHEMA["$id"]
    assert schema(name)["$id"] == f"urn:storewarden:{name}:{JSON_VERSION}"
    assert schema(name)["properties"]["version"]["const"] == JSON_VERSION


@pytest.mark.parametrize("name", NAMES)
def test_every_object_says_all_that_it_has_and_describes_each_member(name: str) -> None:
    for part in _parts(schema(name)):
        members: Mapping[str, Any] = part.get("properties", {})
        if part.get("type") == "object":
            assert part["additionalProperties"] is False or "propertyNames" in part
            assert set(part.get("required", [])) <= members.keys()
        for member, told in members.items():
            own = told.get("description") or "const" in told or "$ref" in told
            assert own, f"{member} is not described"


@pytest.mark.parametrize("name", NAMES)
def test_every_member_stands_in_the_page_for_people_which_links_the_schema(name: str) -> None:
    assert f"(schemas/{name}.json)" in DOCUMENTED
    elsewhere = {"version", *(one.replace("_", "-") for one in Config.__dataclass_fields__)}
    for part in _parts(schema(name)):
        for member in part.get("properties", {}).keys() - elsewhere:
            assert f"`{member}`" in DOCUMENTED, member


def test_what_has_one_name_in_two_schemas_is_the_same() -> None:
    seen: dict[str, object] = {}
    for name in NAMES:
        for word, told in schema(name).get("$defs", {}).items():
            assert seen.setdefault(word, told) == told, f"{word} of {name}"


def _only(name: str, *members: str) -> list[object]:
    """What a member may be, found by going down from the top of a schema or from `$defs`."""
    part = schema(name)
    for member in members:
        part = part[member]
    words: list[object] = part["enum"]
    return words


def test_what_a_member_may_be_is_what_the_program_knows() -> None:
    ended = set(Status) - {Status.TAKEN}
    assert _only("scan", "$defs", "kind") == list(EntryKind)
    assert _only("scan", "$defs", "verdict") == list(Verdict)
    assert set(_only("scan", "$defs", "known")) == {one.value for one in Known}
    assert set(_only("scan", "$defs", "outcome", "properties", "status")) == ended
    assert set(_only("audit-show", "$defs", "result", "properties", "status")) == ended
    assert _only("locks", "$defs", "lockFile", "properties", "role") == list(Role)
    assert set(_only("explain", "$defs", "story", "properties", "state")) == set(What)
    where = _only("status", "$defs", "status", "properties", "problems", "propertyNames")
    assert where == [*PLACES, "service"]
    assert _only("setup", "$defs", "write", "properties", "was") == list(State)
    assert schema("explain-log")["properties"]["paths"]["maxItems"] == MOST_PATHS
    severities = _only("doctor", "$defs", "diagnosis", "properties", "severity")
    assert severities == list(Severity)
    config = ("properties", "config", "properties")
    assert _only("check-config", *config, "mode") == list(Mode)
    assert set(_only("check-config", *config, "kinds", "items")) == set(PROOF)


def test_each_key_of_the_configuration_is_in_the_schema_of_it() -> None:
    told = schema("check-config")["properties"]["config"]
    assert told["properties"].keys() == KEYS.keys(), "in docs/schemas/check-config.json"
    assert set(told["required"]) == document_of(Config()).keys()


@pytest.mark.parametrize(
    ("odd", "where"),
    [({"more": 1}, "more"), ({"sound": None}, "sound"), ({"version": 2}, "version")],
)
def test_what_is_not_as_the_schema_says_is_refused(odd: dict[str, object], where: str) -> None:
    document = {
        "version": 1,
        "sound": True,
        "files": [],
        "records": 0,
        "head": "0" * 64,
        "problem": "",
        "open_intents": 0,
    }
    assert checked(json.dumps(document), "audit", "verify", "--json") == document
    with pytest.raises(AssertionError, match=rf"(?s)audit-verify\.json.*{where}"):
        checked(json.dumps(document | odd), "audit", "verify", "--json")


def test_a_command_without_a_schema_is_noticed_when_a_test_reads_what_it_prints() -> None:
    with pytest.raises(FileNotFoundError):
        checked("{}", "demo", "--json")
