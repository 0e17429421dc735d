"""The workflows that the environment runs. The wheel contains a copy of them; a checkout has them in its folder `workflows`."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import bellwire
from bellwire.errors import NotSetUp

#: The copy in the wheel, which hatch_build.py makes.
BUNDLED = "bellwire.testing.workflows"
#: The package of a checkout, which is not in the wheel.
CHECKOUT = "workflows"


def workflows() -> Sequence[type]:
    """Bellwire's workflow classes. Raises NotSetUp if neither the wheel nor a checkout has them."""
    found: Sequence[type] = _package().WORKFLOWS
    return found


def _package() -> ModuleType:
    try:
        return importlib.import_module(BUNDLED)
    except ModuleNotFoundError as error:
        if error.name != BUNDLED:
            raise
    folder = Path(bellwire.__file__).parents[1] / CHECKOUT
    if folder.is_dir():
        package = importlib.import_module(CHECKOUT)
        # A service may have a package of the same name.
        if package.__file__ and Path(package.__file__).parent == folder:
            return package
    raise NotSetUp(
        "bellwire.testing: Bellwire's workflows are missing; install Bellwire from its wheel "
        "(`pip install 'bellwire[testing]'`), or run in its checkout"
    )
