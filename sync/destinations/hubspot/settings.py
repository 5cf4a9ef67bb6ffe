"""What the HubSpot destination can be told."""

import re
from collections.abc import Mapping
from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from sync.settings import DestinationSettings

NAMES: Mapping[str, str] = {"email": "email", "first_name": "firstname", "last_name": "lastname", "phone": "phone"}
"""Our field → HubSpot's property. `HUBSPOT_FIELDS` adds to it."""

PROPERTY = re.compile(r"[a-z][a-z0-9_]{0,99}")


class HubSpotSettings(DestinationSettings):
    """A private app's token, and which of our fields goes into which property.

    `fields` adds to the table of names or overrides it; an empty property switches a field off. `create_fields` are
    values that every record gets when we create it. `overwrite` says which records may lose a value to a visitor's
    word: none, those that we created, or all. `search_lag` is the number of seconds after which a search is certain to
    find what was created; HubSpot documents none, and integrators have seen up to 30.
    """

    model_config = SettingsConfigDict(env_prefix="HUBSPOT_")

    access_token: SecretStr
    base_url: str = "https://api.hubapi.com"
    fields: dict[str, str] = Field(default_factory=dict)
    create_fields: dict[str, str] = Field(default_factory=dict)
    overwrite: Literal["never", "ours", "always"] = "ours"
    uid_property: str | None = None
    calls_per_10s: float = Field(100.0, gt=0)
    search_lag: float = Field(60.0, ge=0)

    @property
    def names(self) -> dict[str, str]:
        """Our field → property, as it holds after `fields`."""
        return {field: name for field, name in {**NAMES, **self.fields}.items() if name}

    @property
    def fields_by_property(self) -> dict[str, str]:
        """Property → our field."""
        return {name: field for field, name in self.names.items()}

    def may_overwrite(self, *, is_ours: bool) -> bool:
        """Whether a record may lose a value to a visitor's word."""
        return self.overwrite == "always" or (self.overwrite == "ours" and is_ours)

    @field_validator("fields")
    @classmethod
    def _are_properties(cls, fields: dict[str, str]) -> dict[str, str]:
        if any(name and not PROPERTY.fullmatch(name) for name in fields.values()):
            raise ValueError("a property name has only lower-case letters, digits and underscores")
        if fields.get("email", "email") != "email":
            raise ValueError("email cannot go elsewhere: it is what HubSpot knows a contact by")
        names = [name for name in {**NAMES, **fields}.values() if name]
        if len(set(names)) < len(names):
            raise ValueError("two fields go into the same property")
        return fields

    @field_validator("uid_property")
    @classmethod
    def _is_a_property(cls, name: str | None) -> str | None:
        if name is not None and not PROPERTY.fullmatch(name):
            raise ValueError("a property name has only lower-case letters, digits and underscores")
        return name
