#!/bin/sh
# Publish an event with curl.
#
#   BELLWIRE_URL=http://127.0.0.1:8100 BELLWIRE_KEY=bw_... sh examples/publishers/publish.sh 42
#
# Run it twice: the second time nothing is delivered, since source and id are the same.
set -eu
order="${1:-42}"
# With --retry, curl repeats a request that the gateway could not take for now.
curl --fail-with-body --silent --show-error --retry 3 \
  --header "Authorization: Bearer $BELLWIRE_KEY" \
  --header "Content-Type: application/cloudevents+json" \
  --data "{\"specversion\": \"1.0\", \"id\": \"order-$order-paid\", \"source\": \"/shop/orders\", \"type\": \"order.paid\",
           \"tenant\": \"acme\", \"data\": {\"order\": \"$order\", \"total\": \"19.90 EUR\"}}" \
  "$BELLWIRE_URL/v1/events"
echo
