"""References within API descriptions: followed, or copied into a schema that needs nothing else."""

from typing import Any
from urllib.parse import unquote

from starter.operations.problems import InputInvalid

#: References that are followed one after the other.
_MAX_CHAIN = 20
#: Definitions that one schema may need.
_MAX_DEFINITIONS = 1_000
#: Keywords whose values are data, in which `$ref` is a name like any other.
_DATA = {"const", "enum", "default", "example", "examples"}


def resolved(document: dict[str, Any], value: Any) -> Any:
    """What a value refers to, if it is a reference; otherwise the value."""
    for _ in range(_MAX_CHAIN):
        if not isinstance(value, dict) or not isinstance(value.get("$ref"), str):
            return value
        value = pointed(document, value["$ref"])
    raise InputInvalid("refers to itself without end", field=str(value.get("$ref"))[:80])


def pointed(document: dict[str, Any], reference: str) -> Any:
    """What a reference within the document names. Raises InputInvalid."""
    if not reference.startswith("#/"):
        raise InputInvalid(
            f"{reference[:80]!r} is outside the document", field="$ref", remedy="bundle the document first"
        )
    found: Any = document
    for part in unquote(reference[2:]).split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and name.isascii() and name.isdigit() and int(name[:9]) < len(found):
            found = found[int(name[:9])]
        elif isinstance(found, dict) and name in found:
            found = found[name]
        else:
            raise InputInvalid(f"{reference[:80]!r} does not exist in the document", field="$ref")
    return found


class Bundler:
    """Copies a schema out of a document, with what it refers to in `$defs`."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        #: By reference, the name of its copy.
        self._names: dict[str, str] = {}
        self._definitions: dict[str, Any] = {}

    def bundled(self, schema: Any) -> Any:
        """The schema by itself. Raises InputInvalid."""
        if isinstance(schema, dict) and schema.keys() == {"$ref"} and isinstance(schema["$ref"], str):
            schema = resolved(self._document, schema)
        copied = self._copied(schema)
        if not isinstance(copied, dict):
            return copied
        return {**copied, "$defs": {**copied.get("$defs", {}), **self._definitions}} if self._definitions else copied

    def _copied(self, value: Any, *, names: bool = False) -> Any:
        """A copy with new references. `names`: the keys of `value` are names that its author chose."""
        if isinstance(value, list):
            return [self._copied(each) for each in value]
        if not isinstance(value, dict):
            return value
        copy = {}
        for key, each in value.items():
            if not names and key == "$ref" and isinstance(each, str):
                copy[key] = f"#/$defs/{self._name(each)}"
            elif not names and key in _DATA:
                copy[key] = each
            else:
                named = not names and key in {
                    "properties",
                    "patternProperties",
                    "$defs",
                    "definitions",
                    "dependentSchemas",
                }
                copy[key] = self._copied(each, names=named)
        return copy

    def _name(self, reference: str) -> str:
        if reference not in self._names:
            target = pointed(self._document, reference)
            if len(self._names) >= _MAX_DEFINITIONS:
                raise InputInvalid(f"needs more than {_MAX_DEFINITIONS:,} definitions", field=reference[:80])
            last = "".join(each if each.isalnum() else "_" for each in unquote(reference).rpartition("/")[2])
            taken = set(self._names.values())
            name = next(one for n in range(len(taken) + 1) if (one := f"{last}{n or ''}") not in taken)
            self._names[reference] = name
            self._definitions[name] = self._copied(target)
        return self._names[reference]
