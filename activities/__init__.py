"""What touches the world: the registry and the channels. Each module implements stubs of `bellwire.contract`."""
