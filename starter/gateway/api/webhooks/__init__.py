"""What Bellwire sends to endpoints, as the `webhooks` of the OpenAPI document."""
