"""A mailer that only tells of bounces, and proves it with a header."""

import json
from collections.abc import Mapping, Sequence

from sync.destinations.mail.base import Mailer
from sync.errors import NotAuthentic
from sync.models import Email, Heard, Receipt


class Tattler(Mailer):
    """Its body is a JSON list of addresses."""

    vendor = "tattler"

    def __init__(self) -> None:
        pass

    @property
    def hears(self) -> bool:
        return True

    @classmethod
    def headers(cls, settings: object) -> dict[str, str]:
        return {}

    async def check(self) -> str:
        return "tattler"

    async def send(self, email: Email) -> Receipt:
        raise NotImplementedError

    def verify(self, headers: Mapping[str, str], body: bytes, token: str | None) -> None:
        if headers["x-proof"] == "break":
            raise RuntimeError("the check itself fails")
        if headers["x-proof"] != "right":
            raise NotAuthentic("no")

    def heard(self, body: bytes) -> Sequence[Heard]:
        return [Heard(email, "bounced") for email in json.loads(body)]
