# SPDX-License-Identifier: MIT
"""The part that runs as root: what it loads, and what it may import."""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import storewarden

PACKAGE = Path(storewarden.__file__).parent
CHECKOUT = PACKAGE.parent.parent
SHARED = ("audit", "claims", "config", "errors", "protocol", "store", "strict_json")
"""What both halves use, `host` besides."""
TRUSTED = (*SHARED, "helper", "host")
LOADED = frozenset(
    re.findall(
        r"\w+",
        """
        argparse array ast collections contextlib copy copyreg ctypes dataclasses datetime dis
        enum errno fcntl functools gettext grp hashlib importlib inspect ipaddress itertools json
        keyword linecache locale math opcode operator pwd re reprlib select selectors signal
        socket sqlite3 struct subprocess threading token tokenize types typing urllib warnings
        weakref annotationlib string
        """,
    )
)
"""What the helper brings into the process, whatever part of it asks; the last two from 3.14 on."""

IMPORTED = frozenset(
    re.findall(
        r"\w+",
        """
        argparse collections contextlib ctypes dataclasses difflib enum errno fcntl grp hashlib
        itertools json os pwd re select signal socket sqlite3 stat struct subprocess sys time
        tomllib typing urllib
        """,
    )
)
"""What its own files ask for; difflib and tomllib only where there is a configuration to read."""

UNWANTED = frozenset(
    re.findall(
        r"\w+",
        """
        shutil tempfile logging pickle asyncio multiprocessing concurrent ssl http email xml glob
        pathlib random configparser tomllib site psutil structlog watchdog sdnotify
        prometheus_client
        """,
    )
)
"""What root has no use for; some of it runs what it reads."""

_LIST_MODULES = f"""
import sys
sys.path.insert(0, {str(PACKAGE.parent)!r})
before = set(sys.modules)
import storewarden.helper.__main__
print(*sorted(set(sys.modules) - before))
"""


@pytest.fixture(scope="module")
def loaded() -> list[str]:
    """The modules that an isolated interpreter has more than a bare one once the helper is in."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", _LIST_MODULES], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_no_file_of_the_package_is_a_link_that_leads_elsewhere() -> None:
    assert [str(path) for path in PACKAGE.rglob("*") if path.is_symlink()] == []


def test_the_helper_loads_the_standard_library_and_itself(loaded: list[str]) -> None:
    own = {name for name in loaded if name.split(".")[0] == "storewarden"}
    others = {name.split(".")[0] for name in loaded} - {"storewarden"}
    assert {name.split(".")[1] for name in own if "." in name} == set(TRUSTED)
    assert others <= set(sys.stdlib_module_names)
    assert {name for name in others if not name.startswith("_")} <= LOADED


def test_what_root_has_no_use_for_is_not_loaded(loaded: list[str]) -> None:
    assert not UNWANTED & {module.split(".")[0] for module in loaded}


def sources(part: str) -> list[Path]:
    """The files of one part, all levels; a part may be one file."""
    return sorted((PACKAGE / part).rglob("*.py")) or [PACKAGE / f"{part}.py"]


def imports(source: Path) -> Iterator[str]:
    """Every module that a file names in an import, wherever it stands in it."""
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{source}: imports are absolute here"
            assert node.module is not None
            if node.module == "storewarden":
                yield from (f"storewarden.{alias.name}" for alias in node.names)
            else:
                yield node.module


@pytest.mark.parametrize(
    ("part", "builds_on"),
    [
        ("errors", set()),
        ("strict_json", {"storewarden.errors"}),
        ("host", {"storewarden.host"}),
        ("store", {"storewarden.store", "storewarden.errors", "storewarden.strict_json"}),
        ("claims", {"storewarden.store"}),
        ("config", {f"storewarden.{part}" for part in ("claims", "errors", "host", "store")}),
        ("protocol", {f"storewarden.{part}" for part in ("errors", "store", "strict_json")}),
        (
            "audit",
            {f"storewarden.{part}" for part in ("errors", "protocol", "store", "strict_json")},
        ),
        ("helper", {f"storewarden.{part}" for part in (*TRUSTED, "__version__")}),
    ],
)
def test_each_part_imports_what_it_builds_on_and_nothing_else(
    part: str, builds_on: set[str]
) -> None:
    for source in sources(part):
        for name in imports(source):
            words = name.split(".")
            allowed = ".".join(words[:2]) in builds_on or words[0] in IMPORTED
            assert allowed, f"{source} imports {name}"


@pytest.mark.parametrize("part", TRUSTED)
def test_no_trusted_code_is_made_at_run_time(part: str) -> None:
    for source in sources(part):
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec", "compile", "__import__"}, source
            if isinstance(node, ast.keyword):
                assert node.arg not in {"shell", "preexec_fn"}, source


def test_the_package_itself_imports_nothing() -> None:
    # The helper passes through it.
    assert list(imports(PACKAGE / "__init__.py")) == []


@pytest.mark.skipif(
    not (CHECKOUT / "pyproject.toml").exists(), reason="the contracts stand in the checkout"
)
def test_the_contracts_between_the_parts_hold(tmp_path: Path) -> None:
    beside = os.path.join(os.path.dirname(sys.executable), "lint-imports")
    program = beside if os.path.exists(beside) else shutil.which("lint-imports")
    if program is None:
        pytest.skip("import-linter is not installed")
    done = subprocess.run(
        [program, "--config", str(CHECKOUT / "pyproject.toml"), "--no-logo", "--no-cache"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout
