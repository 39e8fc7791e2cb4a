"""Compiles the engine's inner loops where the environment asks for it: `GUARDRAIL_COMPILE=1 pip install .`

Without, the package is pure Python, finds the same and is slower. Needs a C compiler; pip fetches the rest.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ENGINE = Path(__file__).parent / "guardrail" / "engine"
WANTED = os.environ.get("GUARDRAIL_COMPILE", "") not in ("", "0")


class CompiledBuildHook(BuildHookInterface[Any]):
    """Adds the compiled modules to the wheel; an editable install gets them beside their sources."""

    def dependencies(self) -> list[str]:
        return ["cython>=3.1", "setuptools>=77"] if WANTED else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if not WANTED:
            return
        self.folder = Path(tempfile.mkdtemp(prefix="guardrail-"))
        modules = compiled(self.folder)
        if version == "editable":
            for module in modules:
                shutil.copy(module, ENGINE)
        else:
            build_data["pure_python"], build_data["infer_tag"] = False, True
            build_data["force_include"] |= {str(module): f"guardrail/engine/{module.name}" for module in modules}

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if WANTED:
            shutil.rmtree(self.folder)


def compiled(folder: Path) -> list[Path]:
    """The modules made of the engine's `.pyx` files, in a folder."""
    from Cython.Build import cythonize
    from setuptools import Distribution, Extension
    from setuptools.command.build_ext import build_ext

    # Sums must be the reference's to the last bit: no multiplication is fused with an addition.
    flags = [] if sys.platform == "win32" else ["-O3", "-g0", "-ffp-contract=off"]
    modules = [Extension(f"guardrail.engine.{p.stem}", [str(p)], extra_compile_args=flags) for p in sorted(ENGINE.glob("*.pyx"))]
    command = build_ext(Distribution({"ext_modules": cythonize(modules, build_dir=str(folder))}))
    command.build_lib = command.build_temp = str(folder)
    command.ensure_finalized()
    command.run()
    return [Path(path) for path in command.get_outputs()]
