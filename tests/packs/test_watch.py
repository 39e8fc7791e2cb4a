"""A folder of packs has changed when a file in it has."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from guardrail.packs.watch import state_of


def add(folder: Path) -> None:
    (folder / "inner" / "new.yaml").write_text("a: 1")


def edit(folder: Path) -> None:
    (folder / "inner" / "one.yaml").write_text("a: 22")


def touch(folder: Path) -> None:
    os.utime(folder / "inner" / "one.yaml", ns=(1, 1))


def remove(folder: Path) -> None:
    (folder / "inner" / "one.yaml").unlink()


@pytest.mark.parametrize("change", [add, edit, touch, remove])
def test_a_change_is_seen_and_rest_is_rest(tmp_path: Path, change: Callable[[Path], None]) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "one.yaml").write_text("a: 1")
    before = state_of(tmp_path)

    assert state_of(tmp_path) == before
    change(tmp_path)
    assert state_of(tmp_path) != before


def test_a_folder_swapped_by_a_link_has_changed(tmp_path: Path) -> None:
    """As Kubernetes replaces a ConfigMap."""
    for name, text in (("first", "a: 1"), ("second", "a: 2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "one.yaml").write_text(text)
        os.utime(tmp_path / name / "one.yaml", ns=(len(name), len(name)))
    folder = tmp_path / "rules"
    folder.mkdir()
    (folder / "data").symlink_to(tmp_path / "first")
    before = state_of(folder)

    (folder / "new").symlink_to(tmp_path / "second")
    os.replace(folder / "new", folder / "data")

    assert state_of(folder) != before


def test_a_folder_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert state_of(tmp_path / "nowhere") == frozenset()
