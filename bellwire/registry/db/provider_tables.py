"""Tables of the accounts with providers."""

from sqlalchemy import Column, Integer, Table, Text

from bellwire.registry.db.sealed import Sealed
from bellwire.registry.db.tables import Id, Timestamp, metadata

#: The access token of each account, which all workers share.
provider_tokens = Table(
    "provider_tokens",
    metadata,
    Column("provider", Id, primary_key=True),
    Column("account", Id, primary_key=True),
    #: Counts the tokens that the account has had, from 1; 0 before the first.
    Column("generation", Integer, nullable=False),
    Column("token", Sealed("provider_tokens.token")),
    Column("expires_at", Timestamp),
    Column("fetched_at", Timestamp),
    #: Who gets the next token now, and until when others leave it to them.
    Column("claimed_by", Text),
    Column("claimed_until", Timestamp),
)

#: How many messages of a template of WeChat each user has agreed to and not got yet.
wechat_grants = Table(
    "wechat_grants",
    metadata,
    Column("account", Id, primary_key=True),
    #: The hash of account and openid, as in suppressions.
    Column("address_key", Id, primary_key=True),
    Column("template_id", Id, primary_key=True),
    Column("count", Integer, nullable=False),
    #: When the user agreed last. WeChat reports it repeatedly, and each is counted once.
    Column("counted_at", Timestamp),
    Column("created_at", Timestamp, nullable=False),
)

#: Until when each address that has a pace is used up.
paces = Table(
    "paces",
    metadata,
    #: The hash of channel and address, as in suppressions.
    Column("address_key", Id, primary_key=True),
    Column("used_until", Timestamp, nullable=False),
)
