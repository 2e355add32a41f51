# SPDX-License-Identifier: MIT
"""What the documents point at is there: links, headings, files, tests, commands, and texts."""

import glob
import io
import os
import re
import shlex
from contextlib import redirect_stderr, redirect_stdout
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree as ET

import pytest

from documents import (
    DOCUMENTS,
    FILE,
    ROOT,
    TEST,
    anchor,
    anchors,
    code,
    commands,
    files_called,
    first_cells,
    headings,
    links,
    parsed,
    read,
    speaks_of_us,
    texts,
    tokens_of,
)
from storewarden.cli import parser
from storewarden.daemon.status import PLACES

EVERY = pytest.mark.parametrize("document", DOCUMENTS)


@EVERY
def test_nobody_has_to_put_an_owner_in(document: str) -> None:
    assert not re.search(r"\bOWNER\b", read(document)), "who publishes it writes an address, once"


def test_the_documents_are_found() -> None:
    assert {"README.md", "CHANGELOG.md", "docs/architecture.md"} <= set(DOCUMENTS)


@EVERY
def test_every_link_leads_somewhere(document: str) -> None:
    for address in links(tokens_of(document)):
        parts = urlsplit(address)
        if parts.scheme:
            assert parts.scheme == "https", f"{document}: {address}"
            continue
        path = os.path.normpath(os.path.join(os.path.dirname(document), unquote(parts.path)))
        target = path if parts.path else document
        assert os.path.exists(f"{ROOT}/{target}"), f"{document}: {address} leads nowhere"
        if parts.fragment:
            assert parts.fragment in anchors(target), f"{document}: {address} has no such heading"


@EVERY
def test_every_command_can_be_typed(document: str) -> None:
    for command in commands(tokens_of(document)):
        assert not _wrong(command), f"{document}: storewarden {shlex.join(command)}"


@EVERY
def test_every_file_and_test_that_is_named_is_there(document: str) -> None:
    for text in code(tokens_of(document)):
        if named := TEST.fullmatch(text):
            places = files_called(named[1])
            assert places, f"{document}: {text}"
            assert any(f"def {named[2]}(" in read(place) for place in places), text
        elif FILE.fullmatch(text) and (speaks_of_us(text)):
            assert files_called(text), f"{document}: there is no {text}"


def test_what_the_guide_for_operators_quotes_is_what_is_printed() -> None:
    quoted = list(first_cells(tokens_of("docs/operations.md"), "it prints"))
    assert len(quoted) > 20
    for text in quoted:
        assert any(text in said for said in texts()), f"nothing prints: {text}"


def test_every_place_of_a_problem_is_told_of() -> None:
    assert {*PLACES, "service"} == set(first_cells(tokens_of("docs/operations.md"), "PROBLEM"))


def test_pictures_are_whole_and_fetch_nothing() -> None:
    pictures = glob.glob(f"{ROOT}/docs/picture/*.svg")
    assert pictures
    for path in pictures:
        top = ET.parse(path).getroot()  # noqa: S314 - our own file
        assert top.tag == "{http://www.w3.org/2000/svg}svg"
        assert "url(http" not in read(os.path.relpath(path, ROOT))


def test_what_would_be_missed_is_found() -> None:
    text = (
        "# A heading, `with code` & more\n\n[there](#a-heading-with-code--more) ![p](x/y.svg)\n\n"
        "```sh\nsudo .venv/bin/storewarden scan --yes   # words\n"
        "nix build 2>&1 | storewarden explain -\nnix run .#setup -- --dry-run\n```\n\n"
        "`storewarden audit show`, `a/b.py::test_c`\n"
    )
    tokens = parsed(text)
    assert list(links(tokens)) == ["#a-heading-with-code--more", "x/y.svg"]
    assert [anchor(heading) for heading in headings(tokens)] == ["a-heading-with-code--more"]
    assert list(commands(tokens)) == [
        ["scan", "--yes"],
        ["explain", "-"],
        ["setup", "--dry-run"],
        ["audit", "show"],
    ]
    assert _wrong(["scan", "--yess"])
    assert not _wrong(["scan", "--help"])


def _wrong(command: list[str]) -> str:
    """What the command line has against these words; nothing is run."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as said:
        try:
            parser().parse_args(command)
        except SystemExit as end:
            return said.getvalue() if end.code else ""
    return ""
