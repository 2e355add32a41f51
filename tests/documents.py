# SPDX-License-Identifier: MIT
"""The project's documents, and what they point at: links, headings, files, commands, texts."""

import ast
import glob
import os
import re
import shlex
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import groupby, pairwise

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DOCUMENTS = sorted(
    os.path.relpath(path, ROOT)
    for pattern in ("*.md", "docs/**/*.md")
    for path in glob.glob(f"{ROOT}/{pattern}", recursive=True)
)
FOLDERS = (
    "src",
    "tests",
    "docs",
    "nix",
    "systemd",
    "launchd",
    "benchmarks",
    "man",
    "completions",
    "release",
    ".github",
)
FILE = re.compile(
    r"[\w./-]+\.(?:py|md|yml|service|socket|sysusers)|[\w./-]+/[\w-]+\.nix|[\w.-]+(?:/[\w.-]+)*/"
)
TEST = re.compile(r"([\w./-]+\.py)::(\w+)")
_LANGUAGES = {"sh", "console"}
_SPECIAL = "();<>|&"
_BEFORE = re.compile(r"sudo|bwrap|env|-.*|\w+=.*|.*[./:#].*")
"""What may stand in front of storewarden: who runs it, and their options, in no strict order."""


@cache
def read(path: str) -> str:
    with open(f"{ROOT}/{path}", encoding="utf-8") as file:
        return file.read()


@cache
def tokens_of(document: str) -> list[Token]:
    return parsed(read(document))


def parsed(text: str) -> list[Token]:
    """What a document is made of."""
    return MarkdownIt().enable("table").parse(text)


def _inline(tokens: Iterable[Token]) -> Iterator[Token]:
    for token in tokens:
        yield from token.children or ()


def links(tokens: Iterable[Token]) -> Iterator[str]:
    for token in _inline(tokens):
        if address := token.attrs.get("href") or token.attrs.get("src"):
            yield str(address)


def headings(tokens: list[Token]) -> Iterator[str]:
    for before, token in pairwise(tokens):
        if before.type == "heading_open":
            yield "".join(child.content for child in token.children or ())


@cache
def anchors(document: str) -> frozenset[str]:
    return frozenset(map(anchor, headings(tokens_of(document))))


def anchor(heading: str) -> str:
    """As GitHub makes it: in lower case, without marks, a hyphen for each space."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def code(tokens: Iterable[Token]) -> Iterator[str]:
    return (token.content for token in _inline(tokens) if token.type == "code_inline")


def commands(tokens: Iterable[Token]) -> Iterator[list[str]]:
    """What is said to storewarden, in blocks of commands and within a line of text."""
    for token in tokens:
        if token.type == "fence" and token.info in _LANGUAGES:
            for line in token.content.replace("\\\n", " ").splitlines():
                yield from _said(line.removeprefix("$ "))
    for text in code(tokens):
        if re.match(r"(sudo )?storewarden [\w-]", text) and not re.search(r"[\[\]…]", text):
            yield from _said(text)


def _said(line: str) -> Iterator[list[str]]:
    typed = re.sub(r"(^|\s)#.*", "", line)
    lexer = shlex.shlex(typed, posix=True, punctuation_chars=_SPECIAL)
    lexer.whitespace_split = True
    lexer.commenters = ""
    for special, group in groupby(lexer, lambda word: set(word) <= set(_SPECIAL)):
        words = list(group)
        if words[:2] == ["nix", "run"] and "--" in words:
            before, after = words[: words.index("--")], words[words.index("--") + 1 :]
            yield (["setup"] if before[-1].endswith("#setup") else []) + after
            continue
        names = [i for i, word in enumerate(words) if os.path.basename(word) == "storewarden"]
        if special or not names or not all(map(_BEFORE.fullmatch, words[: names[-1]])):
            continue
        yield words[names[-1] + 1 :]


def first_cells(tokens: list[Token], head: str) -> Iterator[str]:
    """The code in the first column of all tables whose first heading is that."""
    first, wanted = "", False
    for before, token in pairwise(tokens):
        match before.type:
            case "tr_open":
                first = token.type
            case "th_open" if first:
                wanted, first = token.content == head, ""
            case "td_open" if first:
                yield from code([token] if wanted else [])
                first = ""


@cache
def texts() -> tuple[str, ...]:
    """Every text in the program, with an ellipsis for what is put into it."""
    found = []
    for path in glob.glob(f"{ROOT}/src/**/*.py", recursive=True):
        for node in ast.walk(ast.parse(read(os.path.relpath(path, ROOT)))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                parts = (str(p.value) if isinstance(p, ast.Constant) else "…" for p in node.values)
                found.append("".join(parts))
    return tuple(found)


def speaks_of_us(text: str) -> bool:
    """Nix's own files, and those of a machine, are named as well."""
    head, slash, _ = text.partition("/")
    return head in FOLDERS if text.endswith("/") else not slash or head not in {"etc", "run"}


@cache
def _all_files() -> tuple[str, ...]:
    """Every file and folder of the project, by its path."""
    found = [name for name in os.listdir(ROOT) if os.path.isfile(f"{ROOT}/{name}")]
    for folder in FOLDERS:
        for top, _, names in os.walk(f"{ROOT}/{folder}"):
            found.append(f"{os.path.relpath(top, ROOT)}/")
            found += [os.path.relpath(f"{top}/{name}", ROOT) for name in names]
    return tuple(found)


def files_called(text: str) -> list[str]:
    """Files of that path, or of one that ends so: documents name what lies in src by its end."""
    return [path for path in _all_files() if f"/{path}".endswith(f"/{text}")]
