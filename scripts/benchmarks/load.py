"""The load generator, a process of its own: plays a simulation, answers with what it measured.

It reads from standard input: `url`, `seed`, `chats`, `kind` ("all" webhooks of every chat or only their "starts"),
`rate` (null: as fast as they are answered), `connections`, `limit` (webhooks at most).
"""

import gc
import itertools
import json
import sys
import time
from typing import Any

from sync.cli.serving import run
from sync.simulation import Webhook, conversations, in_order
from sync.simulation.playing import Endpoint, play


def main() -> None:
    """Play once."""
    spec = json.load(sys.stdin)
    told = list(conversations(spec["seed"], chats=spec["chats"], now=time.time(), duplicates=0, repeat_visitors=0))
    people = {c.chat: c.person.email.lower() for c in told}
    webhooks = (c.webhooks[0] for c in told) if spec["kind"] == "starts" else in_order(told)
    chosen = list(itertools.islice(webhooks, spec["limit"]))
    taken: dict[str, float] = {}

    def note(webhook: Webhook) -> None:
        taken.setdefault(people[webhook.chat], time.monotonic())

    gc.collect()
    gc.freeze()
    gc.disable()
    busy = time.process_time()
    played = run(
        play(
            chosen,
            Endpoint(spec["url"]),
            rate=spec["rate"],
            connections=spec["connections"],
            pauses=(0.0,),
            on_taken=note,
        )
    )
    answer: dict[str, Any] = {
        "sent": played.sent,
        "taken": dict(played.answers),
        "refused": dict(played.refused),
        "seconds": played.seconds,
        "took": played.took,
        "busy": (time.process_time() - busy) / played.took,
        "taken_at": taken if spec["kind"] == "starts" else {},
    }
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
