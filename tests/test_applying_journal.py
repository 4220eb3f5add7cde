"""The files of an apply: killed at each of its steps on disk, what is found is the old configuration or the new."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.applying.journal import Journal, Record


class Crash(BaseException):
    """The agent is gone."""


@contextmanager
def crash_at(step: int) -> Iterator[list[str]]:
    """The step-th change of the disk from here on, and everything after it, is not done. Yields what was done."""
    done: list[str] = []

    def mortal(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if len(done) >= step:
                raise Crash
            done.append(name)
            return real(*args, **kwargs)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for where, name in ((os, "fsync"), (Path, "replace"), (Path, "unlink"), (Path, "hardlink_to"), (Path, "mkdir")):
            patch.setattr(where, name, mortal(name, getattr(where, name)))
        yield done


def record(version: int, *, remote: bool = True) -> Record:
    overlay = {"fidelity_floor": 0.5 + version / 1000}
    return Record(overlay=overlay, version=version, digest=f"d{version}", text=f"text {version}", remote=remote)


def committed(folder: Path, version: int) -> Journal:
    journal = Journal(folder)
    journal.commit(journal.stage(record(version)))
    return journal


def apply_next(folder: Path) -> None:
    journal = Journal(folder)
    journal.begin()
    journal.commit(journal.stage(record(2)))


def fail_next(folder: Path) -> None:
    journal = Journal(folder)
    journal.begin()
    journal.roll_back(journal.stage(record(2)), "it was worse", 422)


def steps(folder: Path, work: Callable[[Path], None]) -> int:
    committed(folder, 1)
    with crash_at(1000) as done:
        work(folder)
    return len(done)


@pytest.mark.parametrize("work", [apply_next, fail_next])
def test_a_crash_at_any_step_leaves_old_or_new_whole_and_says_which(
    tmp_path: Path, work: Callable[[Path], None]
) -> None:
    count = steps(tmp_path / "whole", work)
    assert count > 5
    seen = set()
    for step in range(count + 1):
        folder = tmp_path / str(step)
        committed(folder, 1)
        try:
            with crash_at(step):
                work(folder)
        except Crash:
            pass
        journal = Journal(folder)
        journal.begin()
        found, last = journal.committed, journal.last
        assert found in (
            record(1).model_copy(update={"serial": 1, "number": 1}),
            record(2).model_copy(update={"serial": 2, "number": 2}),
        )
        assert last is not None
        seen.add((found.version, last[0], last[1].state))
    assert seen <= {(1, 1, "applied"), (1, 2, "rolled_back"), (2, 2, "applied")}
    assert (1, 2, "rolled_back") in seen
    assert ((2, 2, "applied") in seen) == (work is apply_next)


def test_starts_are_counted_until_it_has_settled(tmp_path: Path) -> None:
    journal = committed(tmp_path, 1)
    journal.stage(record(2))
    for starts in (1, 2, 3):
        journal = Journal(tmp_path)
        journal.begin()
        assert journal.interrupted is not None and journal.interrupted.starts == starts
        assert journal.committed.version == 1
    journal.settle()
    journal = Journal(tmp_path)
    journal.begin()
    assert journal.interrupted is None
    assert journal.last is not None and journal.last[1].state == "rolled_back" and journal.last[1].code == 500


def test_a_refused_text_is_remembered_and_another_is_not_it(tmp_path: Path) -> None:
    journal = committed(tmp_path, 1)
    journal.roll_back(journal.stage(record(2, remote=False)), "cameras: gone", 422)
    again = Journal(tmp_path)
    assert again.refused("text 2") == "cameras: gone"
    assert again.refused("text 1") is None
    assert again.last is not None and again.last[0] == 1, "an apply of the file is no news of the remote one"


def test_the_newest_few_are_kept_and_stand_in_for_a_damaged_file(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for version in range(1, 10):
        journal.commit(journal.stage(record(version)))
    names = sorted(path.name for path in (tmp_path / "history").iterdir())
    assert [name.partition("-")[2] for name in names] == [f"version-{v}.json" for v in (4, 5, 6, 7, 8)]
    (tmp_path / "committed.json").write_text("{")
    assert Journal(tmp_path).committed.version == 8
    assert (tmp_path / "committed.json.damaged").is_file()


def test_only_the_agent_may_read_the_files(tmp_path: Path) -> None:
    committed(tmp_path, 1)
    assert (tmp_path / "committed.json").stat().st_mode & 0o077 == 0
