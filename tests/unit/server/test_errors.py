"""One tree of errors, stable codes, one table of statuses."""

from idiolect.errors import BundleError, IdiolectError, LayoutError
from idiolect_client.errors import BY_CODE
from idiolect_server.errors import (
    STATUS,
    EngineDead,
    GenerationFailed,
    NotReady,
    Overloaded,
    RequestError,
    Stopping,
    StoreError,
    body,
    status,
)
from idiolect_training import errors as training_errors


def leaves(cls: type[IdiolectError]) -> set[type[IdiolectError]]:
    return {cls} | {leaf for sub in cls.__subclasses__() for leaf in leaves(sub)}


def test_codes_are_unique():
    everything = leaves(IdiolectError)
    assert training_errors.BadPreference in everything
    codes = [cls.code for cls in everything if cls is not IdiolectError]
    assert len(codes) == len(set(codes))


def test_every_error_has_a_status_and_a_reason():
    for cls in leaves(IdiolectError):
        assert 400 <= status(cls("x")) < 600
        assert cls.__doc__


def test_the_client_knows_every_code_that_it_can_meet():
    met = leaves(RequestError) | leaves(StoreError) | leaves(Overloaded)
    met |= {LayoutError, NotReady, Stopping, EngineDead, GenerationFailed}
    assert {error.code for error in met} == set(BY_CODE)
    others = {"InvalidRequest", "NoUserTurn", "StoreRefused"}
    assert all(BY_CODE[error.code].__name__ in {error.__name__, *others} for error in met)


def test_the_nearest_base_decides():
    class Special(BundleError):
        """For this test."""

        code = "special"

    assert status(Special("x")) == STATUS[BundleError]


def test_the_body_carries_everything():
    assert body(IdiolectError("m", hint="h")) == {
        "error": {"code": "internal", "message": "m", "hint": "h", "retryable": False}
    }
