"""What can go wrong, and which outcome each branch becomes.

SyncError
├── SettingsError             the program refuses to start                   exit code 2
├── NotFound                  a command named something that is not there    exit code 2
├── NotAuthentic              wrong or missing signature or token            401, nothing stored
├── SourceError               a source cannot be asked now                   the pull ends, and goes on there next time
├── LedgerError
│   ├── LedgerUnavailable     disk full, read-only, locked too long          503, the source tries again
│   ├── LedgerInUse           another `serve` or `dispatch` owns the file    exit code 3
│   └── LedgerTooNew          written by a newer release                     exit code 3
├── LetterError               a template of the follow-up cannot be rendered Dead, with this reason
└── DeliveryError             an attempt did not deliver
    ├── NotForHere            this destination has no use for the subject    Ignored
    ├── Refused               this one subject is refused                    Dead
    ├── Gone                  its known record was deleted there             Ignored
    │   └── ContactGone       a chat's: the record of its contact was        Retry once the contact is there again
    ├── Busy                  this one subject, this once                    Retry
    │   ├── Postponed         we did not try: no place, no time left         Retry, and nobody's failure
    │   └── UnderWay          an earlier attempt at it has not ended here    Retry
    ├── Broken                a 500: this subject's fault, or everybody's?   Retry; Paused after 5 different subjects
    ├── Throttled             too many calls                                 Paused until its hint
    ├── Unreachable           down, timed out before an answer               Paused with backoff
    │   └── NotSent           no connection: nothing can have landed         Paused with backoff
    ├── Unauthorized          credentials, permissions, plan, quota          Paused until a person acts
    └── AnswerLost            it may or may not have been taken              Unknown (email), else like Unreachable
"""

from typing import ClassVar


class SyncError(Exception):
    """Anything that this project raises on purpose. Its text is one sentence for a person."""


class SettingsError(SyncError):
    """A setting is wrong or missing. Names the variable, never its value."""


class NotFound(SyncError):
    """Nothing has this id."""


class LetterError(SyncError):
    """A template of the follow-up email cannot be rendered. Names the file and the line, never what a visitor said."""


class NotAuthentic(SyncError):
    """The signature or token is wrong or missing."""


class SourceError(SyncError):
    """A source cannot be asked: down, refuses us, or answers what nobody understands. Pulled pages are kept."""


class LedgerError(SyncError):
    """The ledger could not do what was asked."""


class LedgerUnavailable(LedgerError):
    """The ledger cannot be written now. Nothing was stored."""


class LedgerInUse(LedgerError):
    """Another process serves this ledger file."""


class LedgerTooNew(LedgerError):
    """This ledger was written by a newer release."""


class DeliveryError(SyncError):
    """An attempt did not deliver. `reason` is shown to the operator: no personal data, no secrets."""

    def __init__(self, reason: str, *, status: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


class NotForHere(DeliveryError):
    """This destination has no use for the subject, for example no email where it needs one."""


class Refused(DeliveryError):
    """The destination refuses this one subject. `field` is OUR name of the field it blames, where it names one."""

    def __init__(self, reason: str, *, status: int | None = None, field: str | None = None) -> None:
        super().__init__(reason, status=status)
        self.field = field


class Gone(DeliveryError):
    """The known remote record no longer exists, and nothing new was said that would justify making it again."""


class ContactGone(Gone):
    """The record of the chat's contact was deleted there, and the person is here again: the contact is owed anew."""


class Waiting(DeliveryError):
    """An attempt that may go on only later. `after` is the number of seconds the destination asked for, if it did.

    `may_have_landed` says whether it can have taken effect all the same: only then does its announcement stand, and a
    record that is found later can be ours.
    """

    may_have_landed: ClassVar[bool] = False

    def __init__(self, reason: str, *, status: int | None = None, after: float | None = None) -> None:
        super().__init__(reason, status=status)
        self.after = after


class Busy(Waiting):
    """This one subject could not be taken this once: a lock, a conflict, 408, 409, 423, 425."""


class Postponed(Busy):
    """We did not try: there was no place in the limit of calls, no time left in the lease, no ledger to ask."""


class UnderWay(Busy):
    """An earlier attempt at this subject has outlived its lease and has not ended: what it does shows first."""

    may_have_landed = True


class Broken(Waiting):
    """The destination failed inside (500). Whether this subject or the whole destination is broken shows in numbers."""

    may_have_landed = True


class Throttled(Waiting):
    """Too many calls (429, or a 400 or 403 that means it)."""


class Unreachable(Waiting):
    """No answer: reset, timed out, or a gateway said so (502, 503, 504). An upsert may be sent again."""

    may_have_landed = True


class NotSent(Unreachable):
    """No connection came about, so nothing was sent: what was announced was not created."""

    may_have_landed = False


class Unauthorized(Waiting):
    """Credentials, permissions, plan or quota (401, 402, 403): a person has to act."""


class AnswerLost(Waiting):
    """The request was sent whole and no answer came. Only for what cannot be sent twice (a mail)."""

    may_have_landed = True
