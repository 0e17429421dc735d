"""Registry: everything that Bellwire stores, in one database, by resource: `registry.deliveries.list(…)`."""

from typing import Self

from bellwire.endpoint_health import DisablePolicy
from bellwire.keys.keyring import KeyRing
from bellwire.registry.api.api_keys import ApiKeys
from bellwire.registry.api.audit_log import AuditLog
from bellwire.registry.api.event_types import EventTypes
from bellwire.registry.api.explanations import Explanations
from bellwire.registry.api.feeds import Feeds
from bellwire.registry.api.idempotency import Idempotency
from bellwire.registry.api.tenants import Tenants
from bellwire.registry.attempts import Attempts
from bellwire.registry.backlog import Backlog
from bellwire.registry.db import schema
from bellwire.registry.db.engine import Database
from bellwire.registry.deliveries import Deliveries
from bellwire.registry.events import Events
from bellwire.registry.handlers import HandlerServices
from bellwire.registry.limits import RateLimits
from bellwire.registry.matching import Matching
from bellwire.registry.operational_events import OperationalEvents
from bellwire.registry.providers.recalls import Recalls
from bellwire.registry.providers.tokens import ProviderTokens
from bellwire.registry.providers.wechat_grants import WechatGrants
from bellwire.registry.redeliverable import RedeliverableDeliveries
from bellwire.registry.replays.replays import Replays
from bellwire.registry.signing_secrets import SigningSecrets
from bellwire.registry.sms_receipts import SmsReceipts
from bellwire.registry.subscriptions import Subscriptions
from bellwire.registry.suppressions import Suppressions
from bellwire.registry.test_sends import TestSends
from bellwire.registry.ticks import Ticks
from bellwire.registry.upkeep.rekeying import Rekeying
from bellwire.registry.upkeep.retention import Retention

DISABLE_POLICY = DisablePolicy()


class Registry:
    """One attribute per resource. Each method of a resource is one transaction, except those of `retention`.

    All methods raise RegistryUnavailable if the database cannot be reached, and NotSetUp if tables are missing.
    """

    def __init__(self, database: Database, disable_policy: DisablePolicy = DISABLE_POLICY) -> None:
        self._database = database
        self.api_keys = ApiKeys(database)
        self.attempts = Attempts(database, disable_policy)
        self.audit_log = AuditLog(database)
        self.backlog = Backlog(database)
        self.deliveries = Deliveries(database)
        self.event_types = EventTypes(database)
        self.events = Events(database)
        self.handlers = HandlerServices(database)
        self.explanations = Explanations(database)
        self.feeds = Feeds(database)
        self.idempotency = Idempotency(database)
        self.limits = RateLimits(database)
        self.matching = Matching(database)
        self.operational_events = OperationalEvents(database)
        self.provider_tokens = ProviderTokens(database)
        self.recalls = Recalls(database)
        self.redeliverable = RedeliverableDeliveries(database)
        self.rekeying = Rekeying(database)
        self.replays = Replays(database)
        self.retention = Retention(database)
        self.signing_secrets = SigningSecrets(database)
        self.sms_receipts = SmsReceipts(database)
        self.subscriptions = Subscriptions(database)
        self.suppressions = Suppressions(database)
        self.tenants = Tenants(database)
        self.test_sends = TestSends(database)
        self.ticks = Ticks(database)
        self.wechat_grants = WechatGrants(database)

    @classmethod
    async def open(
        cls, url: str, *, pool: int = 10, ring: KeyRing | None = None, disable_policy: DisablePolicy = DISABLE_POLICY
    ) -> Self:
        """Connect to sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME, with at most `pool` connections.

        With a `ring`, private columns are encrypted. `disable_policy` decides when failures disable a subscription.
        """
        registry = cls(Database.at(url, pool=pool, ring=ring), disable_policy)
        try:
            await registry.ping()
        except BaseException:
            await registry.close()
            raise
        return registry

    async def close(self) -> None:
        """Finish writing attempts, then close the connections."""
        await self.attempts.close()
        await self._database.close()

    async def ping(self) -> None:
        """Execute a statement that needs no tables."""
        await self._database.read(schema.ping)

    async def migrate(self) -> None:
        """Create the tables or migrate them to this version. Concurrent calls are safe."""
        await self._database.write(schema.migrate)

    async def check(self) -> None:
        """Raise NotSetUp unless the tables are those of this version."""
        await self._database.read(schema.check)
