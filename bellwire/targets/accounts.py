"""AccountName: which of the operator's accounts with a provider sends. Addresses of one are `account/address`."""

import re
from typing import Annotated

from pydantic import AfterValidator

from bellwire.formats.mailboxes import folded

#: The account of targets that name none.
DEFAULT_ACCOUNT = "default"

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")


def _account(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("must be up to 32 lower-case letters, digits or dashes, such as default")
    return value


def account_key(address: str) -> str:
    """The address of an account as `account/address`: alone, it is one of the account `default`."""
    text = address.strip()
    return text if "/" in text else f"{DEFAULT_ACCOUNT}/{text}"


def folded_account_key(address: str) -> str:
    """The same, where providers ignore the case of letters."""
    return folded(account_key(address))


AccountName = Annotated[str, AfterValidator(_account)]
