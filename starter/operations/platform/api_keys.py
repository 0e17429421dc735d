"""API keys: create, list, revoke and rotate them."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from bellwire.keys.api_keys import Scope
from bellwire.registry import Registry
from bellwire.registry.api.api_keys import OVERLAP, ApiKey, NewApiKey
from bellwire.registry.db.auditing import change
from starter.operations.problems import InputInvalid

MAX_DESCRIPTION = 200


def parse_scope(text: str, *, field: str = "scope") -> Scope:
    """Raises InputInvalid."""
    try:
        return Scope.parse(text)
    except ValueError as error:
        raise InputInvalid(str(error), field=field) from error


async def create_api_key(
    registry: Registry, scope: Scope, *, description: str = "", expires_in: timedelta | None = None
) -> NewApiKey:
    """A new key; its text cannot be shown again. Raises InputInvalid."""
    if len(description) > MAX_DESCRIPTION:
        raise InputInvalid(f"has {len(description):,} characters, the limit is {MAX_DESCRIPTION}", field="description")
    expires_at = None
    if expires_in is not None:
        if expires_in <= timedelta():
            raise InputInvalid("must be more than 0", field="expires_in")
        try:
            expires_at = datetime.now(UTC) + expires_in
        except OverflowError as error:
            raise InputInvalid(
                "is out of range", field="expires_in", remedy="omit it for a key that does not expire"
            ) from error
    with change("api_key.created", str(scope), tenant=scope.tenant):
        return await registry.api_keys.create(scope, description=description, expires_at=expires_at)


async def list_api_keys(
    registry: Registry, *, tenant: str | None = None, after: str = "", limit: int = 100
) -> Sequence[ApiKey]:
    """Keys in order of creation, those that no longer work included."""
    return await registry.api_keys.list(tenant=tenant, after=after, limit=limit)


async def revoke_api_key(registry: Registry, key_id: str) -> ApiKey:
    """Let a key work no more; every process refuses it within seconds. Raises ApiKeyNotFound."""
    with change("api_key.revoked", key_id):
        return await registry.api_keys.revoke(key_id)


async def rotate_api_key(registry: Registry, key_id: str, *, overlap: timedelta = OVERLAP) -> NewApiKey:
    """A successor with the same scope; the old key works for `overlap` more. Raises ApiKeyNotFound, InputInvalid."""
    if overlap < timedelta():
        raise InputInvalid("must not be negative", field="overlap")
    with change("api_key.rotated", key_id):
        return await registry.api_keys.rotate(key_id, overlap=overlap)
