"""Acquire (acquire.io) as a source of webhooks.

`document` parses a body, `v1` or `v2` tell what it says, `person` finds the visitor in it, `dates` the times;
`signature` proves where it comes from.
"""

import hmac
import re
from typing import Any, ClassVar

from pydantic import SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from sync.cleaning import payload_of
from sync.errors import NotAuthentic
from sync.models import Event, EventType
from sync.settings import FromEnvironment
from sync.sources.acquire import v1, v2
from sync.sources.acquire.dates import zone
from sync.sources.acquire.document import Unreadable, as_object, canonical, parse, trimmed, unfold
from sync.sources.acquire.person import lasting
from sync.sources.acquire.reading import Reading, Told
from sync.sources.acquire.signature import is_signed
from sync.sources.base import Digest, Source, WebhookRequest

SIGNATURE = "x-acquire-signature"
SHORTEST_TOKEN = 24
NAME_LIMIT = 100

UNFORESEEN = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError)
"""What reading a payload that nobody foresaw could raise. Such a payload is kept, as unreadable."""


class AcquireSettings(FromEnvironment):
    """How the account's webhooks prove themselves, and which clock its dates are written by."""

    model_config = SettingsConfigDict(env_prefix="ACQUIRE_")

    webhook_secret: SecretStr | None = None
    url_token: SecretStr | None = None
    timezone: str = "UTC"

    @field_validator("webhook_secret")
    @classmethod
    def _is_not_blank(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().strip():
            raise ValueError("is blank")
        return value

    @field_validator("url_token")
    @classmethod
    def _is_long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < SHORTEST_TOKEN:
            raise ValueError(f"is shorter than {SHORTEST_TOKEN} characters")
        if value is not None and not re.fullmatch(r"[A-Za-z0-9_.~-]+", value.get_secret_value()):
            raise ValueError("may hold only letters, digits, - _ . and ~ (it ends an address)")
        return value

    @field_validator("timezone")
    @classmethod
    def _is_a_zone(cls, value: str) -> str:
        try:
            zone(value)
        except (ValueError, LookupError, OSError):
            raise ValueError("is not a time zone such as UTC or Europe/London") from None
        return value


class Acquire(Source):
    """Acquire's webhooks, of both families."""

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
