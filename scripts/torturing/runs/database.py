"""PostgreSQL killed and started again on the same data; connections cut, also in the middle of a transaction."""

from random import Random

from torturing.chance import chance
from torturing.members import until
from torturing.stage import Stage

POINTS = ("store.before", "settle.before", "intend.before")


def play(stage: Stage, seed: int) -> None:
    """Now kill the server with everything in it, now cut all connections, now cut them just before a commit."""
    assert stage.server is not None
    stage.endings_are_fine = True
    random = chance(seed)
    for turn in range(stage.budget):
        stage.wait(random.uniform(0.8, 2.0))
        stage.kills += 1
        match turn % 3:
            case 0:
                _kill(stage, random)
            case 1:
                _cut_before_commit(stage, POINTS[turn // 3 % len(POINTS)], random)
            case _:
                stage.server.cut(stage.ledger.url)
    stage.until_up()


def _kill(stage: Stage, random: Random) -> None:
    assert stage.server is not None
    stage.server.kill()
    stage.wait(random.uniform(0.0, 1.0))
    stage.server.start()


def _cut_before_commit(stage: Stage, point: str, random: Random) -> None:
    """Hold one process just before its commit, cut it off, and let it try."""
    assert stage.server is not None
    member = random.choice(stage.receivers if point.startswith("store") else stage.dispatchers)
    stage.replace(member, TORTURE_POINT=point, TORTURE_HITS="2", TORTURE_ACTION="stop")
    until(lambda: member.is_frozen or not member.is_alive, f"{member.name} comes to {point}", 40)
    stage.server.cut(stage.ledger.url)
    if member.is_alive:
        member.thaw()
