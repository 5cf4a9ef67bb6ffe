"""PostgreSQL far away behind a bad line: every word takes long, is lost now and then, or is never answered."""

from torturing.chance import chance
from torturing.proxy import CLEAR, Between, Weather
from torturing.stage import Stage, free_port
from torturing.witness import NO_ANSWER, REFUSED, STORED, Witness, told

DELAY = (0.05, 0.3)
SLOW = Weather({"late": 1.0}, DELAY)
LOSSY = Weather({"reset": 0.02, "dropped": 0.02, "late": 0.3}, (0.05, 0.15))
"""`reset` hands a portion on and cuts then: where it was a COMMIT, nobody knows whether it is one."""

SHUT = Weather({"dropped": 1.0}, is_storm=True)
SILENT = Weather({"deaf": 1.0})
PHASES = ((SLOW, "slow", 4.0), (SHUT, "shut", 0.7), (LOSSY, "lossy", 4.0), (SILENT, "silent", 2.0), (SHUT, "shut", 0.3))
"""What the line is like, and for how many seconds. A silent one is cut in the end, as a firewall would do."""


def prepare(stage: Stage, seed: int) -> None:
    """Put a proxy before PostgreSQL."""
    from psycopg.conninfo import conninfo_to_dict

    assert stage.server is not None
    port, socket = free_port(), f"{conninfo_to_dict(stage.server.url)['host']}/.s.PGSQL.5432"
    stage.dispatcher_count = 1  # who waits for a lock holds up whoever comes after, a quarter of a second at each word
    stage.proxies["ledger"] = Between("stream", seed, {port: socket}, stage.folder)
    url = f"postgresql://postgres@127.0.0.1:{port}/{stage.folder.name}?sslmode=disable"
    stage.extra = {**stage.extra, "SYNC_LEDGER": url}


def play(stage: Stage, seed: int) -> None:
    """Make the weather; then see that webhooks are taken under clear skies."""
    random, line, witness = chance(seed), stage.proxies["ledger"], Witness(stage)
    stage.until_serving()
    for _ in range(stage.budget):
        stage.wait(random.uniform(0.3, 1.0))
        for weather, name, seconds in PHASES:
            line.change(weather)
            stage.kills += 1
            stage.remarks.append(f"{name}: {told(witness.watch(seconds))}")
        done = line.change(CLEAR)
        stage.remarks.append(", ".join(f"{n} {fault}" for fault, n in sorted(done.items())))
        witness.sees_recovery("the line had been bad")
    witness.finish(may_say=(STORED, REFUSED, NO_ANSWER))
