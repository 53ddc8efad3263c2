"""Typed arguments of the frameworks that come with the service, one module each."""
