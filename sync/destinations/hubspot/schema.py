"""Whether the account is ready: credentials, the properties that we write, the property that holds our uid.

developers.hubspot.com/docs/api-reference/latest/crm/properties/guide
"""

from collections.abc import Mapping
from typing import Any

from sync.destinations.hubspot.answers import NotThere, entries
from sync.destinations.hubspot.api import ACCOUNT, Api
from sync.destinations.hubspot.settings import HubSpotSettings
from sync.errors import Unauthorized

PROPERTIES = "/crm/v3/properties/contacts"

Property = Mapping[str, Any]


async def account(api: Api) -> str:
    """The name under which a person knows the account. Raises if the token is not accepted."""
    try:
        details = await api.ask("GET", ACCOUNT)
    except NotThere:
        raise Unauthorized("nothing like HubSpot answers there: check the base URL", status=404) from None
    return f"HubSpot account {details.get('portalId', 'without a number')}"


async def faults(api: Api, settings: HubSpotSettings) -> list[str]:
    """A sentence for everything that a person has to put right before contacts can be delivered."""
    there = await _properties(api)
    wanted = sorted({*settings.names.values(), *settings.create_fields})
    found = [_fault(name, there.get(name)) for name in wanted]
    if settings.uid_property:
        found.append(_uid_fault(settings.uid_property, there.get(settings.uid_property)))
    return [fault for fault in found if fault]


async def create_uid_property(api: Api, settings: HubSpotSettings) -> str | None:
    """Make the property for our uid where it is set and missing. Returns a sentence about what was made."""
    name = settings.uid_property
    if name is None or name in await _properties(api):
        return None
    definition = {
        "name": name,
        "label": "Chat contact id",
        "description": "The id under which chat-crm-sync knows this contact",
        "groupName": "contactinformation",
        "type": "string",
        "fieldType": "text",
        "hasUniqueValue": True,
    }
    await api.ask("POST", PROPERTIES, definition)
    return f"made the contact property {name}"


async def _properties(api: Api) -> dict[str, Property]:
    return {str(found.get("name")): found for found in entries(await api.ask("GET", PROPERTIES), "results")}


def _fault(name: str, found: Property | None) -> str | None:
    if found is None:
        return f"there is no contact property {name}: create it in HubSpot or leave it out of the settings"
    metadata = found.get("modificationMetadata")
    if found.get("calculated") or (isinstance(metadata, dict) and metadata.get("readOnlyValue")):
        return f"the contact property {name} cannot be written: leave it out of the settings"
    return None


def _uid_fault(name: str, found: Property | None) -> str | None:
    if found is None:
        return f"there is no contact property {name} for our uid: run `crm-sync doctor --fix` to make it"
    if found.get("hasUniqueValue") is not True:
        return f"the contact property {name} does not hold unique values: name another one for our uid"
    return None
