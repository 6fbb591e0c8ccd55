"""A lease goes over at once only from a process that is known to be dead."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

from afina.domain.ids import Ids
from afina.pipeline.identity import ProcessMark, WorkerIdentity, is_known_dead, this_host


def identity_of(pid: int) -> WorkerIdentity:
    return WorkerIdentity.of_this_process(Ids(1), pid)


def test_an_identity_survives_its_text() -> None:
    identity = identity_of(os.getpid())
    assert WorkerIdentity.parse(str(identity)) == identity


def test_two_lives_of_one_process_are_told_apart() -> None:
    assert str(WorkerIdentity.of_this_process(Ids(1), os.getpid())) != str(
        WorkerIdentity.of_this_process(Ids(2), os.getpid())
    )


def test_a_living_worker_is_not_dead() -> None:
    assert not is_known_dead(str(identity_of(os.getpid())))


def test_a_process_that_ended_is_dead_and_a_zombie_too() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = str(identity_of(child.pid))
    assert not is_known_dead(owner)
    child.kill()
    while ProcessMark.of(child.pid) is not None:
        pass  # a zombie: killed, and nobody has waited for it yet
    assert is_known_dead(owner)
    child.communicate()
    assert is_known_dead(owner)


def test_another_process_with_the_same_id_does_not_stand_in() -> None:
    identity = identity_of(os.getpid())
    earlier = replace(identity, process=replace(identity.process, start="1"))
    assert is_known_dead(str(earlier))


def test_of_another_host_or_form_nothing_is_known() -> None:
    identity = replace(identity_of(os.getpid()), host="elsewhere")
    gone = replace(identity, process=ProcessMark(2**22 + 1, "1"))
    assert not is_known_dead(str(gone))
    assert not is_known_dead("someone")
    assert "|" not in this_host()
