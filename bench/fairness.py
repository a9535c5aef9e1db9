"""One receiver that hangs on every request, 10,000 deliveries behind it: what another receiver notices."""

from bench.latency import percentile, running_engine, steady
from bench.worlds import World, account, record_for

BACKLOG = 10_000
RATE = 50


def run(world: World, sink: str) -> dict[str, float]:
    """The other receiver's p95 from commit to arrival, alone and beside the hanging one."""
    world.webhooks(f"{sink}/other", pattern="account:changed")
    with running_engine(world) as engine:
        alone = percentile(steady(world, engine, sink, RATE), 0.95)
    [hanging] = world.webhooks(f"{sink}/hang", pattern="account:stuck")
    record_for(world, (account(n, "stuck") for n in range(BACKLOG)))
    with running_engine(world) as engine:
        beside = percentile(steady(world, engine, sink, RATE), 0.95)
    assert world.pending(hanging) == BACKLOG, "the hanging receiver got something"
    return {
        "fairness.p95_ms.alone": alone,
        "fairness.p95_ms.beside_hanging": beside,
        "fairness.ratio": beside / alone,
    }
