"""Acquire (acquire.io) as a source of webhooks, which can also be asked what it knows.

`document` parses a body, `v1` or `v2` tell what it says, `person` finds the visitor in it, `dates` the times;
`signature` proves where it comes from. `rest` asks, `pull_v1` and `pull_v2` say what for, `pulled` is how that is kept.
"""

import hmac
import json
import re
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, ClassVar
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from sync.cleaning import payload_of
from sync.errors import NotAuthentic
from sync.hours import Hours, hours_of_week
from sync.http import Client, Transport
from sync.models import Event, EventType
from sync.settings import FromEnvironment, check_address
from sync.silence import Expectation, span
from sync.sources.acquire import pulled, v1, v2
from sync.sources.acquire.dates import zone
from sync.sources.acquire.document import Unreadable, as_object, canonical, parse, trimmed, unfold
from sync.sources.acquire.person import lasting
from sync.sources.acquire.pull_v1 import PullV1
from sync.sources.acquire.pull_v2 import PullV2
from sync.sources.acquire.reading import Reading, Told
from sync.sources.acquire.rest import Rest
from sync.sources.acquire.signature import is_signed
from sync.sources.base import Digest, Puller, Source, WebhookRequest

SIGNATURE = "x-acquire-signature"
SHORTEST_TOKEN = 24
NAME_LIMIT = 100

UNFORESEEN = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError)
"""What reading a payload that nobody foresaw could raise. Such a payload is kept, as unreadable."""


class AcquireSettings(FromEnvironment):
    """How the account's webhooks prove themselves, which clock its dates are written by, and how it can be asked."""

    model_config = SettingsConfigDict(env_prefix="ACQUIRE_")

    webhook_secret: SecretStr | None = None
    url_token: SecretStr | None = None
    timezone: str = "UTC"
    expect_every: Annotated[float | None, BeforeValidator(span)] = None
    expect_hours: Annotated[Hours | None, NoDecode, BeforeValidator(hours_of_week)] = None
    expect_timezone: str | None = None
    api_token: SecretStr | None = None
    api_base_url: str = "https://app.acquire.io/api"
    v2_account: str | None = None
    v2_api_key: SecretStr | None = None
    v2_base_url: str | None = None
    pull_per_second: float = Field(2.0, gt=0, le=100)
    pull_page_size: int = Field(100, ge=1, le=1000)
    pull_timeout: float = Field(30.0, gt=0, le=300)

    @field_validator("webhook_secret")
    @classmethod
    def _is_not_blank(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().strip():
            raise ValueError("is blank")
        return value

    @field_validator("api_token", "v2_api_key")
    @classmethod
    def _fits_into_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(r"[\x21-\x7e]+", value.get_secret_value()):
            raise ValueError("holds a space or a character that no token has")
        return value

    @field_validator("api_base_url", "v2_base_url")
    @classmethod
    def _is_https_or_loopback(cls, value: str | None) -> str | None:
        if value is not None:
            check_address(value)
        return value if value is None else value.rstrip("/")

    @field_validator("v2_account")
    @classmethod
    def _is_an_account(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?", value):
            raise ValueError("is not the first part of an address such as https://ACCOUNT.acquire.io")
        return value

    @model_validator(mode="after")
    def _knows_where_to_ask(self) -> "AcquireSettings":
        if self.v2_api_key is not None and self.v2_account is None and self.v2_base_url is None:
            raise ValueError("ACQUIRE_V2_ACCOUNT has to be set where ACQUIRE_V2_API_KEY is")
        return self

    @property
    def v2_url(self) -> str:
        """Where the second version of the REST API is."""
        return self.v2_base_url or f"https://{self.v2_account}.acquire.io/api/v1"

    @field_validator("url_token")
    @classmethod
    def _is_long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < SHORTEST_TOKEN:
            raise ValueError(f"is shorter than {SHORTEST_TOKEN} characters")
        if value is not None and not re.fullmatch(r"[A-Za-z0-9_.~-]+", value.get_secret_value()):
            raise ValueError("may hold only letters, digits, - _ . and ~ (it ends an address)")
        return value

    @field_validator("timezone", "expect_timezone")
    @classmethod
    def _is_a_zone(cls, value: str | None) -> str | None:
        try:
            zone(value or "UTC")
        except (ValueError, LookupError, OSError):
            raise ValueError("is not a time zone such as UTC or Europe/London") from None
        return value


class Acquire(Source):
    """Acquire's webhooks, and its REST APIs, of both families."""

    name: ClassVar[str] = "acquire"
    Settings: ClassVar[type[FromEnvironment]] = AcquireSettings

    def __init__(self, settings: AcquireSettings, *, digest: Digest, phone_region: str) -> None:
        self.settings = settings
        self.digest = digest
        self.phone_region = phone_region
        self.zone = zone(settings.timezone)

    @property
    def is_guarded(self) -> bool:
        """Whether there is a secret or a token to check."""
        return self.settings.webhook_secret is not None or self.settings.url_token is not None

    @property
    def expectation(self) -> Expectation | None:
        """How often a webhook is expected, and when."""
        given = self.settings
        return None if given.expect_every is None else Expectation(given.expect_every, given.expect_hours, self.wall)

    @property
    def wall(self) -> ZoneInfo:
        """The zone of the clock on the wall where webhooks come from: the account's own unless another is set."""
        return ZoneInfo(self.settings.expect_timezone or self.settings.timezone)

    def verify(self, request: WebhookRequest) -> None:
        """Return if the token of the URL or the signature is right; one of them suffices. Raises NotAuthentic."""
        if self.is_guarded and not self._has_token(request) and not self._has_signature(request):
            raise NotAuthentic("The webhook carries neither the right token nor the right signature.")

    def is_hopeless(self, request: WebhookRequest) -> bool:
        """Whether the token is wrong or missing and there is no signature that a body could match."""
        may_be_signed = self.settings.webhook_secret is not None and SIGNATURE in request.headers
        return self.is_guarded and not self._has_token(request) and not may_be_signed

    def _has_token(self, request: WebhookRequest) -> bool:
        expected = self.settings.url_token
        if expected is None or request.token is None:
            return False
        return hmac.compare_digest(_as_bytes(request.token), _as_bytes(expected.get_secret_value()))

    def _has_signature(self, request: WebhookRequest) -> bool:
        secret, signature = self.settings.webhook_secret, request.headers.get(SIGNATURE)
        if secret is None or signature is None:
            return False
        return is_signed(request.body, signature, secret.get_secret_value())

    def read(self, body: bytes, *, event_id: str, received_at: float) -> Event:
        """Say what happened. Never raises: what cannot be read becomes an Event with `error`."""
        reading = Reading(received_at=received_at, zone=self.zone, region=self.phone_region, keyed=self._keyed)
        name, told, error = "", None, None
        try:
            document = trimmed(parse(body, reading))
            name = _name(document, reading)
            told = _tell(document, name, reading)
        except Unreadable as reason:
            error = str(reason)
        except UNFORESEEN as unforeseen:
            error = f"the webhook could not be understood ({type(unforeseen).__name__})"
        if told is None:
            told = Told(key=self.digest(body), type=EventType.OTHER, occurred_at=received_at)
        return Event(
            id=event_id,
            source=self.name,
            key=told.key,
            type=told.type,
            name=name,
            occurred_at=told.occurred_at,
            received_at=received_at,
            payload=payload_of(body),
            chat=told.chat,
            visitor=told.visitor,
            news=told.news,
            flags=tuple(reading.flags),
            error=error,
        )

    @property
    def can_pull(self) -> bool:
        """Whether a token of either version is set."""
        return self.settings.api_token is not None or self.settings.v2_api_key is not None

    def pullers(
        self,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        transport: Transport | None = None,
    ) -> Sequence[Puller]:
        """The lists that the tokens give access to."""

        def rest(secret: str, token: SecretStr, base_url: str, **headers: str) -> Rest:
            client = Client(
                base_url,
                headers={"Authorization": f"Bearer {token.get_secret_value()}", **headers},
                connections=1,
                timeout=given.pull_timeout,
                transport=transport,
                clock=clock,
                blip=0.0,
            )
            return Rest(client, secret=secret, per_second=given.pull_per_second, clock=clock, sleep=sleep)

        def reading() -> Reading:
            return Reading(received_at=clock(), zone=self.zone, region=self.phone_region, keyed=self._keyed)

        given, found = self.settings, list[Puller]()
        if given.api_token is not None:
            zone = json.dumps({"timezone": given.timezone, "offset": self._offset(clock())})
            asked = rest("ACQUIRE_API_TOKEN", given.api_token, given.api_base_url, zone=zone)
            found.append(PullV1(asked, given.pull_page_size, reading, given.timezone))
        if given.v2_api_key is not None:
            asked = rest("ACQUIRE_V2_API_KEY", given.v2_api_key, given.v2_url)
            found.append(PullV2(asked, given.pull_page_size, reading))
        return found

    def _offset(self, now: float) -> str:
        written = datetime.fromtimestamp(now, self.zone).strftime("%z")
        return f"{written[:3]}:{written[3:5]}"

    def _keyed(self, family: str, name: str, chat: str | None, says: object) -> str:
        return self.digest(canonical([family, name, chat, says]))


def _as_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _name(document: dict[str, Any], reading: Reading) -> str:
    event = document.get("event")
    name = reading.text("event", event, limit=NAME_LIMIT) if isinstance(event, str) else None
    if name is None:
        raise Unreadable("the body names no event")
    return name


def _tell(document: dict[str, Any], name: str, reading: Reading) -> Told:
    if name in (pulled.NAME, pulled.UNREADABLE):
        return pulled.tell(document, name, reading)
    data = document.get("data")
    case = as_object(unfold(data, "data", reading), "`data`") if data is not None else {}
    if v1.is_family(name):
        return v1.tell({**document, **case}, name, reading)
    if v2.is_family(case):
        return v2.tell(case, name, reading)
    return _kept(document, name, reading)


def _kept(document: dict[str, Any], name: str, reading: Reading) -> Told:
    """An event that tells of no chat, such as an agent's login: kept, nothing concluded."""
    return Told(
        key=reading.keyed("other", name, None, lasting(document)),
        type=EventType.OTHER,
        occurred_at=reading.received_at,
    )
