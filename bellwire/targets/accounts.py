"""AccountName: which of the operator's accounts with a provider sends."""

import re
from typing import Annotated

from pydantic import AfterValidator

#: The account of targets that name none.
DEFAULT_ACCOUNT = "default"

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")


def _account(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("must be up to 32 lower-case letters, digits or dashes, such as default")
    return value


AccountName = Annotated[str, AfterValidator(_account)]
