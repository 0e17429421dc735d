"""Names of tenants, and the two with a meaning: `default`, and `*` for all tenants."""

import re
from typing import Annotated

from pydantic import AfterValidator

#: The tenant of events and subscriptions that name none, and of what concerns no single tenant.
DEFAULT_TENANT = "default"
#: As the tenant of an event: it is for the subscriptions of every tenant.
ALL_TENANTS = "*"

_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_REMEDY = "must be 1 to 63 letters, digits, dots, dashes or underscores, the first a letter or digit"


def tenant_name(value: str) -> str:
    """Return `value` if it is the name of one tenant. Raises ValueError."""
    if value == ALL_TENANTS:
        raise ValueError("is *, which addresses an event to all tenants; a subscription has one tenant, so name it")
    if not _TENANT.fullmatch(value):
        raise ValueError(_REMEDY)
    return value


def _addressed(value: str) -> str:
    if value != ALL_TENANTS and not _TENANT.fullmatch(value):
        raise ValueError(f"{_REMEDY}; or * for all tenants")
    return value


#: The tenant of a subscription.
TenantName = Annotated[str, AfterValidator(tenant_name)]
#: The tenants that an event is for: one, or all.
AddressedTenant = Annotated[str, AfterValidator(_addressed)]
