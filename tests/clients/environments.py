"""Clients that need an environment of their own: installed once, by the test that wants it, into the user's cache folder.

The folder is named by a digest of what is installed, so a change makes a new one. Where it cannot be installed (no npm, no
network) the test is skipped and says why.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

_INSTALLED_WITHIN = 300


def node_packages(folder: Path) -> Path:
    """The packages of a folder's lock file; gives the folder that holds `node_modules` beside a copy of its files."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("node and npm are not installed")

    def install(target: Path) -> None:
        for file in folder.iterdir():
            shutil.copy(file, target)
        _run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=0"], target)

    return _made(folder.name, b"".join(sorted(f.read_bytes() for f in folder.iterdir())), install)


def python_packages(name: str, *requirements: str) -> Path:
    """A Python with these packages, for libraries that cannot be installed beside the newest of ours."""

    def install(target: Path) -> None:
        _run([sys.executable, "-m", "venv", str(target)], target)
        pip = [str(target / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check"]
        _run([*pip, "--quiet", "--no-compile", "--retries=0", *requirements], target)

    return _made(name, "\n".join([sys.version, *requirements]).encode(), install) / "bin" / "python"


def _made(name: str, content: bytes, install: Callable[[Path], None]) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "guardrail-tests"
    made = cache / f"{name}-{hashlib.sha256(content).hexdigest()[:12]}"
    complete = made / ".complete"
    if not complete.exists():
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        install(made)
        complete.touch()
    return made


def _run(command: Sequence[str], folder: Path) -> None:
    with tempfile.TemporaryFile() as said:
        try:
            subprocess.run(command, cwd=folder, stdout=said, stderr=said, stdin=subprocess.DEVNULL, timeout=_INSTALLED_WITHIN, check=True)
        except (subprocess.SubprocessError, OSError) as error:
            said.seek(0)
            last = said.read().decode("utf-8", "replace").strip().splitlines()[-1:]
            pytest.skip(f"cannot be installed here: {' '.join(command[:3])}: {' '.join(last) or error}")
