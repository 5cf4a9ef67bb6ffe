"""Bad networks on both sides of the service: each fault in turn, then all mixed, then clear skies."""

from random import Random

from torturing.chance import chance
from torturing.members import until
from torturing.proxy import CLEAR, FAULTS, Between, Weather
from torturing.stage import Stage, free_port

WRITES = r"POST \S+/(notes|batch/(create|update|upsert)|contacts) "
"""The requests whose loss matters most."""

SHARE = 0.35
HITS = 2
"""Of each fault on writes before the next one comes."""

ROUND = HITS * len(FAULTS)
PATIENCE = 20.0
MIXED = 5.0
MOST = 0.06
DELAY = (0.05, 0.5)
"""Seconds: past the service's timeout, and short enough that a search after `HUBSPOT_SEARCH_LAG` finds it."""

OUTSIDE = {name: 0.015 for name in FAULTS}
QUICK = ("deaf", "mute")
"""Only the service's timeout ends these. The source's is long."""


def prepare(stage: Stage, seed: int) -> None:
    """Put a proxy before the CRM and one before the service."""
    port, mouths = free_port(), {free_port(): str(port) for port in stage.ports}
    stage.proxies["crm"] = Between("http", seed, {port: str(stage.crm_port)}, stage.folder)
    stage.proxies["service"] = Between("http", seed + 1, mouths, stage.folder)
    stage.extra = {**stage.extra, "HUBSPOT_BASE_URL": f"http://127.0.0.1:{port}"}


def play(stage: Stage, seed: int) -> None:
    """Make the weather."""
    random = chance(seed)
    inside, outside = stage.proxies["crm"], stage.proxies["service"]
    stage.source.ports = outside.ports
    outside.change(Weather({**OUTSIDE, **dict.fromkeys(QUICK, 0.002)}, DELAY))
    for _ in range(max(1, stage.budget // ROUND)):
        for fault in random.sample(list(FAULTS), len(FAULTS)):
            _until_hit(stage, inside, fault)
        _mix(stage, inside, random)
    done, around = inside.change(CLEAR), outside.change(CLEAR)
    stage.kills += sum(done[fault] for fault in FAULTS)
    stage.remarks.append(f"towards the CRM {_told(done)}")
    stage.remarks.append(f"towards the service {_told(around)}")


def _until_hit(stage: Stage, inside: Between, fault: str) -> None:
    """One fault alone, until some writes have met it."""
    weather = Weather({fault: SHARE}, DELAY, WRITES)
    enough = inside.change(weather)[fault] + HITS

    def is_enough() -> bool:
        stage.tend()
        return inside.change(weather)[fault] >= enough

    until(is_enough, f"{HITS} writes meet {fault!r}", PATIENCE)


def _mix(stage: Stage, inside: Between, random: Random) -> None:
    """All at once, in changing shares, on whatever is asked."""
    for _ in range(int(MIXED)):
        inside.change(Weather({name: random.uniform(0, MOST) for name in FAULTS}, DELAY))
        stage.wait(1.0)


def _told(done: dict[str, int]) -> str:
    return ", ".join(f"{done.get(name, 0)} {name}" for name in FAULTS)
