# SPDX-License-Identifier: MIT
import os

import pytest

from helper.child import among_own_processes, in_child, mount, needs_root, take_own_mounts
from storewarden.host import processes_inside, processes_of


@needs_root
@pytest.mark.parametrize(
    ("way", "groups"), [("invisible", ()), ("ptraceable", ()), ("ptraceable", (0,))]
)
def test_processes_that_are_hidden_are_unknown_and_not_absent(
    way: str, groups: tuple[int, ...]
) -> None:
    def where_others_are_hidden() -> object:
        take_own_mounts()
        mount("-t", "proc", "-o", f"hidepid={way}", "none", "/proc")
        os.setgroups(groups)
        os.setgid(65534)
        os.setuid(65534)
        return [processes_inside("/nowhere", set()), processes_of((1,))]

    assert in_child(where_others_are_hidden) == [None, None]


@needs_root
def test_where_only_what_may_be_traced_is_shown_not_even_the_first_process_sees_all() -> None:
    def first_and_without_that_capability() -> object:
        mount("-t", "proc", "-o", "hidepid=ptraceable", "none", "/proc")
        assert os.path.exists("/proc/1/status")
        return processes_of((65534,))

    assert among_own_processes(first_and_without_that_capability) is None
