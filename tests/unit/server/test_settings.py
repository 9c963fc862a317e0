"""Settings: checked at start, unknown names refused, no open door."""

import pytest

from idiolect_server.door.keys import digest
from idiolect_server.errors import SettingsError
from idiolect_server.settings import Settings


def read(monkeypatch: pytest.MonkeyPatch, **values: str) -> Settings:
    monkeypatch.setenv("IDIOLECT_BUNDLE", "b")
    for name, value in values.items():
        monkeypatch.setenv(f"IDIOLECT_{name}", value)
    return Settings.read()


def test_defaults_listen_on_loopback(monkeypatch):
    settings = read(monkeypatch)
    assert settings.host == "127.0.0.1"
    assert settings.api_keys == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "eighty"),
        ("PORT", "70000"),
        ("INJECTION", "magic"),
        ("API_KEYS", "my-secret"),
        ("HOST", "0.0.0.0"),
        ("HOST", "example.org"),
        ("MAX_NUM_SEQS", "0"),
        ("DTYPE", "int8"),
        ("REDIS_URL", "localhost:6379"),
        ("REDIS_URL", "redis+cluster://"),
        ("MODLE", "demo"),
    ],
)
def test_what_is_wrong_is_named(monkeypatch, name, value):
    with pytest.raises(SettingsError) as caught:
        read(monkeypatch, **{name: value})
    assert {"HOST": "api_keys"}.get(name, f"IDIOLECT_{name}") in caught.value.message


@pytest.mark.parametrize("url", ["redis://h/0", "rediss://u:p@h:1", "unix:///r.sock", "redis+cluster://u:p@a:1,b:2"])
def test_redis_urls(monkeypatch, url):
    assert read(monkeypatch, REDIS_URL=url).redis_url == url


def test_structured_outputs_can_be_off(monkeypatch):
    assert read(monkeypatch).structured_outputs
    assert not read(monkeypatch, STRUCTURED_OUTPUTS="off").structured_outputs


def test_a_missing_bundle_is_named(monkeypatch):
    monkeypatch.delenv("IDIOLECT_BUNDLE", raising=False)
    with pytest.raises(SettingsError, match="IDIOLECT_BUNDLE"):
        Settings.read()


def test_the_world_may_connect_with_keys_only(monkeypatch):
    settings = read(monkeypatch, HOST="0.0.0.0", API_KEYS=f"{digest('a')}, {digest('b')}")
    assert settings.api_keys == (digest("a"), digest("b"))
    assert digest("a") not in repr(settings)
