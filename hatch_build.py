"""Build hook of the wheel: it adds a copy of `workflows/` for `bellwire.testing`, as the package bellwire.testing.workflows.

A top-level package of that name in site-packages would collide with the packages of services. So the copy imports itself by its
name there. The application does not use it: it runs from the checkout.
"""

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE, TARGET = "workflows", "bellwire.testing.workflows"
#: `from workflows.… import …` and `from workflows import …`, which is how the workflows import each other.
_IMPORT = re.compile(rf"^(\s*from ){SOURCE}(?=[.\s])", re.MULTILINE)


class BundleWorkflows(BuildHookInterface[Any]):
    """Copies the workflows into the wheel, with their imports renamed."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return  # a checkout has the workflows themselves
        self._folder = Path(tempfile.mkdtemp(prefix="bellwire-workflows-"))
        source = Path(self.root, SOURCE)
        for file in sorted(source.rglob("*.py")):
            copy = self._folder / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(_IMPORT.sub(rf"\g<1>{TARGET}", file.read_text()))
            build_data["force_include"][str(copy)] = f"{TARGET.replace('.', '/')}/{file.relative_to(source).as_posix()}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        if version != "editable":
            shutil.rmtree(self._folder)
