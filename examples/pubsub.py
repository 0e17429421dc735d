"""Publish an event, subscribe a function to it afterwards, and have it called: durably, whatever is killed meanwhile.

    TEMPORAL_ADDRESS=localhost:7233 python examples/pubsub.py

It ends once the function was called. Or run the service in one terminal, and publish in another:

    TEMPORAL_ADDRESS=localhost:7233 python examples/pubsub.py publish ann
    TEMPORAL_ADDRESS=localhost:7233 python examples/pubsub.py run

Kill the service while it greets somebody: started again, it greets them again. Events that are published while it is down wait
for it. Ctrl-C ends it. It needs `bellwire` without extras.
"""

import asyncio
import sys

from bellwire import Client, Event, Handlers, Receipt, Reject

handlers = Handlers(service="greetings")
#: Ids of the events that were handled.
greeted = asyncio.Queue[str]()


@handlers.on("user_register", since="1h", timeout="1m")
async def send_welcome(event: Event) -> None:
    if not isinstance(event.data, dict) or "name" not in event.data:
        raise Reject("the event has no name")
    print(f"greeting {event.data['name']} …", flush=True)
    await asyncio.sleep(2)
    print(f"Welcome, {event.data['name']}!", flush=True)
    await greeted.put(event.id)


async def publish(client: Client, name: str) -> Receipt:
    receipt = await client.publish(Event(source="/users", type="user_register", data={"name": name}))
    print("published", receipt.event_id, flush=True)
    return receipt


async def main(command: str = "", name: str = "ann") -> None:
    client = await Client.connect()
    if command == "publish":
        await publish(client, name)
    elif command == "run":
        await handlers.run(client)
    else:
        receipt = await publish(client, name)
        async with handlers.running(client):  # subscribes, and calls the function
            while await greeted.get() != receipt.event_id:
                pass


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
