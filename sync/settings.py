"""The only reader of the environment: variables, the `.env` file, and secrets as files."""

import os
from collections.abc import Sequence
from difflib import get_close_matches
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import BeforeValidator, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from pydantic_settings import SettingsError as UnparsableSetting

from sync.errors import SettingsError


class FromEnvironment(BaseSettings):
    """A group of settings under one prefix. Empty variables count as unset; unknown ones belong to somebody else."""

    model_config = SettingsConfigDict(env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True)


AnySettings = TypeVar("AnySettings", bound=FromEnvironment)


def variable_of(settings: type[FromEnvironment], field: str) -> str:
    """The environment variable that sets a field: its own alias where it has one, else prefix and name."""
    if isinstance(alias := settings.model_fields[field].validation_alias, str):
        return alias
    return (settings.model_config.get("env_prefix", "") + field).upper()


def load(settings: type[AnySettings]) -> AnySettings:
    """Read one group of settings. Raises SettingsError, which names each variable and never a value."""
    directory = os.environ.get("SYNC_SECRETS_DIR") or None
    if directory is not None and not Path(directory).is_dir():
        raise SettingsError("SYNC_SECRETS_DIR names a folder that is not there")
    try:
        return settings() if directory is None else settings(_secrets_dir=directory)  # type: ignore[call-arg]
    except ValidationError as error:
        findings = "; ".join(
            f"{variable_of(settings, str(found['loc'][0]))}: {_plain(found)}" if found["loc"] else _plain(found)
            for found in error.errors(include_input=False, include_url=False)
        )
        raise SettingsError(findings) from None
    except UnparsableSetting as error:
        raise SettingsError(_without_value(settings, error)) from None


PLAIN = {
    "missing": "is missing",
    "int_parsing": "is not a whole number",
    "float_parsing": "is not a number",
    "bool_parsing": "is neither true nor false",
}
"""Findings in plainer words than the library's."""


def _plain(found: Any) -> str:
    return PLAIN.get(found["type"]) or str(found["msg"]).removeprefix("Value error, ")


def _without_value(settings: type[FromEnvironment], error: Exception) -> str:
    for field in settings.model_fields:
        if f'"{field}"' in str(error):
            return f"{variable_of(settings, field)}: is not valid JSON"
    return "a setting is not valid JSON"


def unknown_names(groups: Sequence[type[FromEnvironment]]) -> dict[str, str | None]:
    """Names in `.env` that look like settings and are none, each with the one that was probably meant."""
    known = {variable_of(group, field) for group in groups for field in group.model_fields}
    prefixes = tuple({str(group.model_config.get("env_prefix")) for group in groups})
    named = [name.upper() for name in dotenv_values(".env", interpolate=False)]
    strange = [name for name in named if name.startswith(prefixes) and name not in known]
    return {name: next(iter(get_close_matches(name, known, 1)), None) for name in strange}


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own loopback. Names that only begin like one are not."""
    try:
        return ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def check_address(value: str) -> None:
    """Only https, but for this machine. Raises ValueError."""
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("is not an http(s) address")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise ValueError("must be https: credentials and contacts would cross the network in the clear")


def _comma_list(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


CommaList = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_comma_list)]


class Settings(FromEnvironment):
    """What is about the service as a whole. Each field is documented in `.env.example`."""

    model_config = SettingsConfigDict(env_prefix="SYNC_")

    ledger: str = "sqlite:///chat-crm-sync.sqlite3"
    sources: CommaList = ("acquire",)
    destinations: CommaList = ("sandbox",)
    host: str = "127.0.0.1"
    port: int = Field(8900, ge=0, le=65535)
    public_url: str | None = None
    mailer: str | None = None
    phone_region: str = "US"
    secret_key: SecretStr | None = None
    retry_for: float = Field(3 * 86400.0, gt=0)
    alarm_url: SecretStr | None = None
    heartbeat_url: SecretStr | None = None
    alarm_email: str | None = None
    body_limit: int = Field(1 << 20, ge=1024)
    body_timeout: float = Field(10.0, gt=0)
    disk_reserve: int = Field(200 << 20, ge=0)
    log_format: Literal["console", "json"] = "console"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    secrets_dir: str | None = None

    @field_validator("phone_region")
    @classmethod
    def _is_a_region(cls, value: str) -> str:
        import phonenumbers

        if value.upper() not in phonenumbers.SUPPORTED_REGIONS:
            raise ValueError("is not a two-letter country code such as US or GB")
        return value.upper()

    @field_validator("public_url")
    @classmethod
    def _is_an_address(cls, value: str | None) -> str | None:
        if value is not None:
            check_address(value)
        return value

    @field_validator("alarm_url", "heartbeat_url")
    @classmethod
    def _is_safe_to_call(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            check_address(value.get_secret_value())
        return value

    @field_validator("alarm_email")
    @classmethod
    def _can_be_mailed_to(cls, value: str | None, given: ValidationInfo) -> str | None:
        from email_validator import EmailNotValidError, validate_email

        if value is not None:
            try:
                validate_email(value, check_deliverability=False, test_environment=True)
            except EmailNotValidError:
                raise ValueError("is not an email address such as ada@example.com") from None
            if given.data.get("mailer") is None:
                raise ValueError("needs SYNC_MAILER: somebody has to send the mail")
        return value

    @field_validator("secret_key")
    @classmethod
    def _is_long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < 32:
            raise ValueError("is shorter than 32 characters")
        return value


class LaneSettings(FromEnvironment):
    """How a lane may use its destination: connections at once, seconds of waiting."""

    connections: int = Field(8, ge=1, le=100)
    timeout: float = Field(10.0, gt=0, le=300)


class DestinationSettings(LaneSettings):
    """What every destination can be told. Subclasses set `env_prefix`, so `base_url` becomes HUBSPOT_BASE_URL."""

    base_url: str

    @field_validator("base_url")
    @classmethod
    def _is_https_or_loopback(cls, value: str) -> str:
        check_address(value)
        return value.rstrip("/")
