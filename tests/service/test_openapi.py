"""The document says what the routes do: asked with a few hundred requests that are derived from it."""

import asyncio

import pytest

from bench.clients.openapi import try_all
from tests.parts.service import Service


@pytest.mark.slow
def test_answers_are_as_described(run):
    async def check(running: Service) -> None:
        tally = await asyncio.to_thread(try_all, str(running.http.base_url), 600)
        assert tally.found == []
        assert tally.cases >= 400
        assert {200, 400, 422} <= tally.statuses.keys()

    run(check)
