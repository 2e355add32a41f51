# SPDX-License-Identifier: MIT
import io
import json
import os
import pty

from storewarden.daemon.log import open_log

HOSTILE = "a\x1b[31m\nb\u202e"


def test_elsewhere_an_event_is_one_json_object_a_line() -> None:
    stream = io.StringIO()
    open_log(stream, {}).warning("not removed", path=HOSTILE, files=3)
    [line] = stream.getvalue().splitlines()
    document = json.loads(line)
    assert list(document)[:3] == ["timestamp", "level", "event"]
    assert (document["event"], document["level"], document["files"]) == (
        "not removed",
        "warning",
        3,
    )
    assert document["path"] == r"a\x1b[31m\nb\u202e"


def test_for_the_journal_a_line_begins_with_its_priority() -> None:
    stream = io.StringIO()
    log = open_log(stream, {"JOURNAL_STREAM": "8:1"})
    log.info("removed", path="/nix/store/x", files=3)
    log.error("problem", text="no disk", where="")
    log.debug("not wanted")
    assert stream.getvalue().splitlines() == [
        "<6>removed path=/nix/store/x files=3",
        '<3>problem text="no disk" where=""',
    ]


def on_terminal(environment: dict[str, str]) -> str:
    above, below = pty.openpty()
    with (
        os.fdopen(above, "rb", buffering=0) as reader,
        os.fdopen(below, "w", encoding="utf-8") as stream,
    ):
        open_log(stream, environment).info("removed", path=HOSTILE)
        stream.flush()
        return reader.read(4096).decode()


def test_on_a_terminal_it_is_for_people_and_a_name_cannot_play_tricks() -> None:
    line = on_terminal({"TERM": "xterm"})
    assert "removed" in line
    assert "\x1b[31m\n" not in line
    assert r"a\x1b[31m\nb\u202e" in line


def test_on_a_terminal_levels_have_the_colours_of_their_meaning() -> None:
    assert "[\x1b[32m" in on_terminal({"TERM": "xterm"})


def test_on_a_terminal_colours_can_be_turned_off() -> None:
    assert "\x1b" not in on_terminal({"TERM": "xterm", "NO_COLOR": "1"})
    assert "\x1b" not in on_terminal({"TERM": "dumb"})
