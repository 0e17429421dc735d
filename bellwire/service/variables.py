"""Names of BELLWIRE_* environment variables: a misspelt one has no effect, so it is reported."""

import difflib
from collections.abc import Iterable, Mapping

from pydantic.fields import FieldInfo

PREFIX = "BELLWIRE_"
#: Variables of the tests, of the examples and of the command `bellwire`.
_OTHERS = ("BELLWIRE_TEST_", "BELLWIRE_FAULT_", "BELLWIRE_SECRET", "BELLWIRE_URL", "BELLWIRE_KEY")


def misspelt_variables(given: Iterable[str], settings: Mapping[str, FieldInfo]) -> list[str]:
    """Return a warning for each given BELLWIRE_* variable that is none of the settings, with the nearest one."""
    known = {f"{PREFIX}{name.upper()}": field for name, field in settings.items()}
    nested = tuple(f"{name}__" for name, field in known.items() if field.annotation and "dict" in str(field.annotation))
    names = [name.removeprefix(PREFIX) for name in known]
    warnings = []
    for name in sorted(given):
        upper = name.upper()
        if not upper.startswith(PREFIX) or upper in known or upper.startswith((*nested, *_OTHERS)):
            continue
        near = difflib.get_close_matches(upper.removeprefix(PREFIX), names, n=1, cutoff=0.6)
        hint = (
            f"; did you mean {PREFIX}{near[0]}?" if near else "; the settings are listed in docs/reference/settings.md"
        )
        warnings.append(f"{name[:100]} is not a setting and has no effect{hint}")
    return warnings
