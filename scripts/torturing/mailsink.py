"""Takes mails as a process of its own and keeps a list of them: an SMTP server, or an imitation of Resend or Postmark.

`python -m torturing.mailsink KIND PORT JOURNAL BEHAVIOUR`. Each mail that goes out is a line in the journal before
anybody is told. While a file JOURNAL.calm is there, it behaves. It knows nothing of the service.
"""

import asyncio
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email import message_from_bytes
from email.policy import SMTP as MAIL_POLICY
from email.utils import parseaddr
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar, cast

from aiosmtpd.smtp import SMTP, Envelope, Session

from torturing.chance import chance
from torturing.listening import Answering, Listener

KINDS = ("smtp", "resend", "postmark")
SECRET = "torture-mailer-0123456789"  # noqa: S105 - of our own processes on loopback
FOREVER = 30.0
"""Seconds that a stalled answer takes: longer than anybody waits for it."""


@dataclass(frozen=True)
class Behaviour:
    """How it behaves. The shares are of all mails; the first three have been taken, the others have not."""

    seed: int = 0
    dropped: float = 0.04
    """The connection is gone after the last byte of the mail."""
    stalled: float = 0.01
    """There is no answer."""
    broken: float = 0.02
    """500 with success behind it. An SMTP server that says no has not taken the mail, so this one says nothing."""
    cut: float = 0.02
    """The connection is gone before the mail was sent."""
    busy: float = 0.03
    """4yz, or 429."""
    refused: float = 0.02
    """5yz, or 422: this mail is never taken."""


TAKEN = ("dropped", "stalled", "broken")


@dataclass
class Sink:
    """What it took. `keys` are those of Resend: what was sent under each, and the answer."""

    kind: str
    journal: Path
    behaviour: Behaviour
    keys: dict[str, tuple[str, str]] = field(default_factory=dict)
    sending: set[str] = field(default_factory=set)
    lock: Lock = field(default_factory=Lock)
    n: int = 0

    def __post_init__(self) -> None:
        """Its moods are its own, the same for the same seed."""
        self.random = chance(self.behaviour.seed, self.kind)
        self.calm = self.journal.with_name(f"{self.journal.name}.calm")

    def mood(self) -> str:
        """What goes wrong with the next mail: a field of Behaviour, or nothing."""
        with self.lock:
            left = self.random.random()
        if self.calm.exists():
            return ""
        for name in (*TAKEN, "cut", "busy", "refused"):
            left -= getattr(self.behaviour, name)
            if left < 0:
                return name
        return ""

    def take(self, mail: Mapping[str, Any]) -> str:
        """Send a mail: write it down. Returns its id."""
        with self.lock:
            self.n += 1
            name = f"mail-{self.n}"
            self._tell({"id": name, **mail})
        return name

    def note(self, what: str) -> None:
        """Write down something that is not a mail."""
        with self.lock:
            self._tell({"noted": what})

    def _tell(self, line: Mapping[str, Any]) -> None:
        with self.journal.open("a") as journal:
            journal.write(json.dumps({"at": time.time(), **line}) + "\n")


class Hangup(Exception):
    """The connection is to be closed without an answer."""


Answer = tuple[int, Any]


def resend(sink: Sink, headers: Mapping[str, str], body: Any) -> Answer:
    """POST /emails: a key that was used before gives the first answer again, and no second mail.

    resend.com/docs/dashboard/emails/idempotency-keys
    """
    if headers.get("authorization") != f"Bearer {SECRET}":
        return 401, {"statusCode": 401, "name": "missing_api_key", "message": "no"}
    key, said, mood = headers.get("idempotency-key", ""), json.dumps(body, sort_keys=True), sink.mood()
    mail = {"to": parseaddr(body["to"][0])[1], "subject": body["subject"], "key": key}
    with sink.lock:
        known = sink.keys.get(key)
        is_under_way = known is None and key in sink.sending
    if known is not None and mood == "refused":
        mood = ""  # what was found good once is not found wanting now; but the limit of calls comes first
    if refusal := _refused(mood, {"statusCode": 422, "name": "validation_error", "message": "no"}):
        return refusal
    if is_under_way:
        return 409, {"statusCode": 409, "name": "concurrent_idempotent_requests", "message": "wait"}
    sink.sending.add(key)
    if known is not None and known[0] != said:
        return 409, {"statusCode": 409, "name": "invalid_idempotent_request", "message": "another payload"}
    if known is None:
        known = (said, sink.take({**mail, "message_id": body["headers"]["Message-ID"]}))
        sink.keys[key] = known
    else:
        sink.note("the same key again: not sent twice")
    _misbehave(mood)
    return (500, {"statusCode": 500, "name": "internal_server_error"}) if mood == "broken" else (200, {"id": known[1]})


def postmark(sink: Sink, headers: Mapping[str, str], body: Any) -> Answer:
    """POST /email: whatever is sent again goes out again. postmarkapp.com/developer/api/email-api"""
    if headers.get("x-postmark-server-token") != SECRET:
        return 401, {"ErrorCode": 10, "Message": "no"}
    mood = sink.mood()
    if refusal := _refused(mood, {"ErrorCode": 300, "Message": "Invalid email request"}):
        return refusal
    told = {one["Name"]: one["Value"] for one in body["Headers"]}
    message_id = told["Message-ID"] if told.get("X-PM-KeepID") == "true" else ""
    name = sink.take({"to": parseaddr(body["To"])[1], "subject": body["Subject"], "key": "", "message_id": message_id})
    _misbehave(mood)
    if mood == "broken":
        return 500, {"ErrorCode": 0, "Message": "Internal Server Error"}
    return 200, {"To": body["To"], "MessageID": name, "ErrorCode": 0, "Message": "OK"}


def _refused(mood: str, said: Mapping[str, Any]) -> Answer | None:
    if mood == "cut":
        raise Hangup
    return {"busy": (429, {}), "refused": (422, said)}.get(mood)


def _misbehave(mood: str) -> None:
    if mood == "stalled":
        time.sleep(FOREVER)
    if mood in ("dropped", "stalled"):
        raise Hangup


ROUTES: Mapping[str, tuple[str, Callable[[Sink, Mapping[str, str], Any], Answer]]] = {
    "resend": ("/emails", resend),
    "postmark": ("/email", postmark),
}


class Handler(Answering):
    """What is asked over HTTP."""

    sink: ClassVar[Sink]

    def do_POST(self) -> None:  # noqa: N802 - the name that http.server looks for
        """One mail."""
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        path, send = ROUTES[self.sink.kind]
        if self.path != path:
            self.sink.note(f"a strange call: {self.path}")
            self.give(404, {})
            return
        try:
            self.give(*send(self.sink, {name.lower(): value for name, value in self.headers.items()}, body))
        except Hangup:
            self.close_connection = True

    def do_GET(self) -> None:  # noqa: N802 - the same
        """Whether it is up."""
        self.give(200, {})


class Conversation(SMTP):
    """One SMTP connection: aiosmtpd's, with moods. The names of the methods are aiosmtpd's."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.mood = ""
        super().__init__(Postbox(), hostname="sink.example.com", loop=asyncio.get_running_loop())

    async def hang_up(self) -> None:
        """Close the connection without an answer."""
        cast(asyncio.WriteTransport, self.transport).abort()
        await asyncio.Event().wait()  # until the connection is gone

    async def smtp_MAIL(self, arg: Any) -> None:  # noqa: N802
        """A mail begins."""
        self.mood = self.sink.mood()
        await super().smtp_MAIL(arg)

    async def smtp_RCPT(self, arg: Any) -> None:  # noqa: N802
        """Whom it is for."""
        if self.mood == "refused":
            await self.push("550 5.1.1 no such mailbox")
        else:
            await super().smtp_RCPT(arg)

    async def smtp_DATA(self, arg: Any) -> None:  # noqa: N802
        """Its text is to come."""
        if self.mood == "cut":
            await self.hang_up()
        await super().smtp_DATA(arg)

    async def taken(self, envelope: Envelope) -> str:
        """What is answered to a whole mail."""
        if self.mood == "busy":
            return "451 4.3.0 try again later"
        mail = message_from_bytes(cast(bytes, envelope.content), policy=MAIL_POLICY)
        told = {"subject": str(mail["Subject"]), "message_id": str(mail["Message-ID"]), "key": ""}
        name = self.sink.take({"to": ", ".join(map(str, envelope.rcpt_tos)), **told})
        if self.mood in ("dropped", "broken"):
            await self.hang_up()
        if self.mood == "stalled":
            await asyncio.sleep(FOREVER)
        return f"250 2.0.0 queued as {name}"


class Postbox:
    """Where aiosmtpd hands over what was sent."""

    async def handle_DATA(self, server: Conversation, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        """One mail."""
        return await server.taken(envelope)


async def serve_smtp(sink: Sink, port: int) -> None:
    """Take mails by SMTP until ended."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Conversation(sink), "127.0.0.1", port)
    await server.serve_forever()


def main(arguments: Sequence[str]) -> None:
    """Serve until ended."""
    kind, port, journal, behaviour = arguments
    sink = Sink(kind, Path(journal), Behaviour(**json.loads(behaviour)))
    if kind == "smtp":
        asyncio.run(serve_smtp(sink, int(port)))
    else:
        Handler.sink = sink
        Listener(("127.0.0.1", int(port)), Handler).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
