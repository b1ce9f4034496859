"""Configuration values and secrets that the manifest grants under `allow: config` and `allow: secrets`."""

from typing import Dict, Optional

from wit_world.imports import wasi_config_store_0_2_0_rc_1 as store


def get(key: str, default: Optional[str] = None) -> Optional[str]:
    """Returns the value of `key`, or the default if the manifest does not grant it."""
    value = store.get(key)
    return default if value is None else value


def all() -> Dict[str, str]:
    """Returns all keys and values, including secrets."""
    return dict(store.get_all())


def secret(key: str) -> Optional[str]:
    """Returns the secret `key`. Secrets and configuration are one store; do not write a secret to logs or events."""
    return get(key)
