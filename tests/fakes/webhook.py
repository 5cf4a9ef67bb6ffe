"""A receiver of our webhooks, as a small ASGI application that keeps what it was told."""

import json
from collections.abc import Mapping
from typing import Any

from starlette.types import Receive, Scope, Send


class Receiver:
    """Keeps the newest state of each contact and chat. A message id that it has seen changes nothing."""

    def __init__(self) -> None:
        self.contacts: dict[str, Mapping[str, Any]] = {}
        self.chats: dict[str, Mapping[str, Any]] = {}
        self.seen: set[str] = set()
        self.refused: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        body = b""
        while True:
            part = await receive()
            body += part.get("body", b"")
            if not part.get("more_body"):
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        status = 204 if scope["method"] == "HEAD" else self.take(headers["webhook-id"], json.loads(body))
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def take(self, key: str, message: Mapping[str, Any]) -> int:
        data = message["data"]
        if data.get("email") in self.refused:
            return 422
        if key not in self.seen:
            match message["type"]:
                case "contact.updated":
                    self.contacts[data["uid"]] = data
                case "contact.erased":
                    self.contacts.pop(data["uid"], None)
                case "chat.closed":
                    self.chats[data["chat"]] = data
            self.seen.add(key)
        return 200
