"""Reads configuration files of the operator. Errors name the setting, the file, and the field or line."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from bellwire.errors import Known, fields_in_error

Config = TypeVar("Config")


def read_config(setting: str, path: Path, parse: Callable[[str], Config], *, known: Known = lambda _: ()) -> Config:
    """The file parsed by `parse`. Raises ValueError if it cannot be read or `parse` raises a ValueError.

    `known` gives the fields that a misspelt one may be.
    """
    try:
        return parse(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ValueError(f"{setting}: {path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{setting}: {path}: is not text in UTF-8; save it as UTF-8") from error
    except ValidationError as error:
        raise ValueError(f"{setting}: {path}: {fields_in_error(error, known=known)}") from error
    except ValueError as error:
        raise ValueError(f"{setting}: {path}: {error}") from error
