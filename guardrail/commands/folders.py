"""The options that name packs, the same for every command that reads them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from guardrail.packs.load import Loaded, load, shipped_rules

F = TypeVar("F", bound=Callable[..., Any])
_FOLDER = click.Path(path_type=Path)


def packs_options(command: F) -> F:
    """`--rules` and `--overrides`."""
    command = click.option("--overrides", type=_FOLDER, metavar="FOLDER", help="Overrides, after those of the packs' own overrides.d.")(
        command
    )
    return click.option("--rules", type=_FOLDER, metavar="FOLDER", help="Rule packs in place of the shipped ones.")(command)


def read_packs(rules: Path | None, overrides: Path | None) -> Loaded:
    return load(rules or shipped_rules(), overrides=overrides)
