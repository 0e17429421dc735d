"""Names of BELLWIRE_* environment variables: a misspelt one has no effect, so it is reported."""

import difflib
import os
from collections.abc import Mapping

from bellwire.service.settings import Settings

PREFIX = "BELLWIRE_"
#: Variables of the tests and of the examples of receivers.
_OTHERS = ("BELLWIRE_TEST_", "BELLWIRE_FAULT_", "BELLWIRE_SECRET")


def misspelt_variables(environment: Mapping[str, str] | None = None) -> list[str]:
    """Return a warning for each BELLWIRE_* variable that is no setting, with the nearest setting. Values are left out."""
    known = {f"{PREFIX}{name.upper()}": field for name, field in Settings.model_fields.items()}
    nested = tuple(f"{name}__" for name, field in known.items() if field.annotation and "dict" in str(field.annotation))
    names = [name.removeprefix(PREFIX) for name in known]
    warnings = []
    for name in sorted(os.environ if environment is None else environment):
        upper = name.upper()
        if not upper.startswith(PREFIX) or upper in known or upper.startswith((*nested, *_OTHERS)):
            continue
        near = difflib.get_close_matches(upper.removeprefix(PREFIX), names, n=1, cutoff=0.6)
        hint = (
            f"; did you mean {PREFIX}{near[0]}?" if near else "; the settings are listed in docs/reference/settings.md"
        )
        warnings.append(f"{name[:100]} is not a setting and has no effect{hint}")
    return warnings
