# SPDX-License-Identifier: MIT
import os

from helper.child import in_child, mount, needs_root, take_own_mounts
from storewarden.host import processes_inside, processes_of


@needs_root
def test_processes_that_are_hidden_are_unknown_and_not_absent() -> None:
    def where_others_are_hidden() -> object:
        take_own_mounts()
        mount("-t", "proc", "-o", "hidepid=invisible", "none", "/proc")
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        return [processes_inside("/nowhere", set()), processes_of((1,))]

    assert in_child(where_others_are_hidden) == [None, None]
