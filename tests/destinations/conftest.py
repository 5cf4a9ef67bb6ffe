"""One rig for each destination that the conformance suite runs on."""

from collections.abc import Iterator

import pytest

from tests.destinations.conformance import RIGS, HubSpotRig, Rig


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=RIGS, ids=lambda rig: rig.name)
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    rig: Rig = request.param()
    yield rig
    rig.close()


@pytest.fixture
def hubspot() -> Iterator[HubSpotRig]:
    rig = HubSpotRig()
    yield rig
    rig.close()
