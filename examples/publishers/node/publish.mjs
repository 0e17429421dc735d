// Publish an event with Node's standard library only.
//
//   BELLWIRE_URL=http://127.0.0.1:8100 BELLWIRE_KEY=bw_... node examples/publishers/node/publish.mjs 42
//
// Run it twice: the second time nothing is delivered, since source and id are the same.
import { setTimeout as sleep } from "node:timers/promises";

const ATTEMPTS = 4;
const order = process.argv[2] ?? "42";
const event = {
  specversion: "1.0",
  id: `order-${order}-paid`,
  source: "/shop/orders",
  type: "order.paid",
  tenant: "acme",
  data: { order, total: "19.90 EUR" },
};

async function publish(event) {
  for (let attempt = 1; ; attempt++) {
    const response = await fetch(`${process.env.BELLWIRE_URL}/v1/events`, {
      method: "POST",
      headers: {
        authorization: `Bearer ${process.env.BELLWIRE_KEY}`,
        "content-type": "application/cloudevents+json",
      },
      body: JSON.stringify(event),
      signal: AbortSignal.timeout(30_000),
    }).catch((error) => error);
    if (response instanceof Response && response.ok) return response.json(); // durable from here on
    // Publishing again is safe: source and id are the event's key.
    const later = response instanceof Error || response.status === 429 || response.status >= 500;
    if (!later || attempt === ATTEMPTS) {
      throw response instanceof Error ? response : new Error(await response.text());
    }
    await sleep(250 * 2 ** attempt);
  }
}

console.log(JSON.stringify(await publish(event)));
