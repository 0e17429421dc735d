"""Publish an event, subscribe a function to it afterwards, and have it called: durably, whatever is killed meanwhile.

    TEMPORAL_ADDRESS=localhost:7233 python examples/pubsub.py publish ann
    TEMPORAL_ADDRESS=localhost:7233 python examples/pubsub.py run

The second command is the service. Kill it while it greets somebody: started again, it greets them again. Events that are
published while it is down wait for it. It needs `bellwire` without extras.
"""

import asyncio
import sys

from bellwire import Client, Event, Handlers, Reject

handlers = Handlers(service="greetings")


@handlers.on("user_register", since="1h", timeout="1m")
async def send_welcome(event: Event) -> None:
    if not isinstance(event.data, dict) or "name" not in event.data:
        raise Reject("the event has no name")
    print(f"greeting {event.data['name']} …", flush=True)
    await asyncio.sleep(2)
    print(f"Welcome, {event.data['name']}!", flush=True)


async def main(command: str, name: str) -> None:
    client = await Client.connect()
    if command == "publish":
        receipt = await client.publish(Event(source="/users", type="user_register", data={"name": name}))
        print("published", receipt.event_id)
    else:
        await handlers.run(client)


if __name__ == "__main__":
    command, name = [*sys.argv[1:], "run", "ann"][:2] if len(sys.argv) == 1 else [*sys.argv[1:], "ann"][:2]
    asyncio.run(main(command, name))
