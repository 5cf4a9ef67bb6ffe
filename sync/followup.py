"""When a follow-up email is owed. One pure function: chat, contact, history, now → due at a time, or not and why.

It is asked at every event of the chat until sending has begun, and once more right before that. Whatever it says is
shown: a mail that is not sent has its reason in the ledger.
"""

from dataclasses import dataclass
from datetime import time
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator, Field, field_validator
from pydantic_settings import SettingsConfigDict

from sync.hours import Hours, hours_of_day
from sync.models import Chat, Contact
from sync.settings import FromEnvironment

HOUR = 3600.0

BUSY = "more than FOLLOWUP_MAX_PER_HOUR in the last hour; it waits for its turn"
"""The reason of a mail that is put off because many go out."""


class FollowupSettings(FromEnvironment):
    """How the follow-up is sent, and when. Each field is documented in `.env.example`. Times are in seconds."""

    model_config = SettingsConfigDict(env_prefix="FOLLOWUP_", loc_by_alias=False, populate_by_name=True)

    sender: str | None = Field(None, validation_alias="FOLLOWUP_FROM")
    reply_to: str | None = None
    subject: str = "Thank you for chatting with us"
    company: str | None = None
    templates: str | None = None
    transcript: bool = False
    delay: float = Field(900.0, ge=0)
    after_start: float | None = Field(None, ge=0)
    max_age: float = Field(86400.0, gt=0)
    cooldown: float = Field(7 * 86400.0, ge=0)
    max_per_hour: int = Field(60, ge=1)
    hours: Annotated[tuple[time, time] | None, BeforeValidator(hours_of_day)] = None
    timezone: str = "UTC"

    @field_validator("timezone")
    @classmethod
    def _is_a_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ValueError, LookupError, OSError):
            raise ValueError("is not the name of a time zone such as Europe/Berlin") from None
        return value

    @field_validator("sender", "reply_to")
    @classmethod
    def _is_a_mailbox(cls, value: str | None) -> str | None:
        from email_validator import EmailNotValidError, validate_email

        if value is not None:
            try:
                validate_email(value, allow_display_name=True, check_deliverability=False, test_environment=True)
            except EmailNotValidError:
                raise ValueError("is not an email address such as Ada <ada@example.com>") from None
        return value


@dataclass(frozen=True, slots=True)
class History:
    """What else is known when a follow-up is decided.

    `mailer_since` is when a mailer was first set up; `suppressed` why no mail may go to the address; `last_mail_at`
    when the person's newest mail about another chat was begun; `newer_chat` whether a chat of the person began after
    this one was over; `sent_at` the times of the mails begun in the last hour, of everybody.
    """

    mailer_since: float
    suppressed: str | None = None
    last_mail_at: float | None = None
    newer_chat: bool = False
    sent_at: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Due:
    """A mail is owed at a time (epoch seconds). `reason` says why it waits longer than the usual delay, if it does."""

    at: float
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class NotDue:
    """No mail is owed, for a reason."""

    reason: str


def decide(rules: FollowupSettings, chat: Chat, contact: Contact, history: History, now: float) -> Due | NotDue | None:
    """Whether, and when, a chat is followed up. None: there is nothing to follow up yet."""
    over = _over_at(rules, chat, now)
    if over is None:
        return None
    ended, due = over
    if (reason := _against(rules, chat, contact, history, ended, now)) is not None:
        return NotDue(reason)
    return _in_time(rules, history, max(due, now), ended)


def _over_at(rules: FollowupSettings, chat: Chat, now: float) -> tuple[float, float] | None:
    """When the chat was over, and when its mail would be due."""
    if chat.closed_at is not None:
        ended = min(chat.closed_at, now)
        return ended, ended + rules.delay
    if rules.after_start is not None and chat.started_at is not None:
        began = min(chat.started_at, now)
        return began, began + rules.after_start
    return None


def _against(
    rules: FollowupSettings, chat: Chat, contact: Contact, history: History, ended: float, now: float
) -> str | None:
    """Why no mail is owed, the most lasting reason first."""
    if history.suppressed is not None:
        return f"no mail goes to this address: {history.suppressed}"
    if ended < history.mailer_since:
        return "the chat was over before a mailer was set up"
    if now - ended > rules.max_age:
        return "the chat was over too long ago (FOLLOWUP_MAX_AGE)"
    if contact.email is None:
        return "no email is known"
    if chat.accepted_at is None and chat.agent is None:
        return "no agent took part in the chat"
    if history.newer_chat:
        return "a newer chat of the same person began"
    if history.last_mail_at is not None and now - history.last_mail_at < rules.cooldown:
        return "the same person had a mail a short while ago (FOLLOWUP_COOLDOWN)"
    return None


def _in_time(rules: FollowupSettings, history: History, due: float, ended: float) -> Due | NotDue:
    """The first moment from `due` on that is neither in a quiet hour nor in an hour that is full."""
    reason = None
    if len(history.sent_at) >= rules.max_per_hour:
        room = sorted(history.sent_at)[-rules.max_per_hour] + HOUR
        if room > due:
            due, reason = room, BUSY
    if (opens := opening(rules, due)) > due:
        due, reason = opens, "it waits for FOLLOWUP_HOURS"
    if due - ended > rules.max_age:
        return NotDue("it could not be sent in time (FOLLOWUP_MAX_AGE)")
    return Due(due, reason)


def opening(rules: FollowupSettings, at: float) -> float:
    """The time itself if mail may go then, else when FOLLOWUP_HOURS next begin, in FOLLOWUP_TIMEZONE."""
    return at if rules.hours is None else Hours(*rules.hours).opening(at, ZoneInfo(rules.timezone))
