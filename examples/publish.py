"""Publish an event, and wait until it is delivered to every matching subscription.

    TEMPORAL_ADDRESS=localhost:7233 python examples/publish.py 42

It needs `bellwire` without extras, which installs pydantic and temporalio. Run it twice: the second time nothing is
delivered, since source and id are the same.
"""

import asyncio
import sys

from bellwire import Client, Event


async def main(order: str) -> None:
    client = await Client.connect()
    receipt = await client.publish(
        Event(
            id=f"order-{order}-paid",
            source="/shop/orders",
            type="order.paid",
            tenant="acme",
            data={"order": order, "total": "19.90 EUR"},
        )
    )
    print("published before" if receipt.duplicate else "published", receipt.workflow_id)

    status = await client.wait(receipt, timeout=60)
    print(f"{status.counts.delivered} of {status.counts.matched} delivered")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "42"))
