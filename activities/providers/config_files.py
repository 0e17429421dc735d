"""Reads configuration files of the operator. Errors name the setting, the file, and the field or line."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from bellwire.errors import fields_in_error

Config = TypeVar("Config")


def read_config(setting: str, path: Path, parse: Callable[[str], Config]) -> Config:
    """The file parsed by `parse`. Raises ValueError if it cannot be read or `parse` raises a ValueError."""
    try:
        return parse(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ValueError(f"{setting}: {path}: cannot be read: {error.strerror or error}") from error
    except ValidationError as error:
        raise ValueError(f"{setting}: {path}: {fields_in_error(error)}") from error
    except ValueError as error:
        raise ValueError(f"{setting}: {path}: {error}") from error
