"""Nothing is lost, whatever is killed: kill -9 at random moments under load, then a reckoning.

Seeded: the same moments each run, as far as the machine's own timing allows. In all 52 kills, or as many
as CLARION_TEST_KILLS says (`make kills`), and at the end the application's. Webhooks are reckoned up, and
telemetry, recorded or sent with `send_event`.
"""

import os
import signal
from collections.abc import Iterator
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

from tests.clarion.engines.brokers import AMQP, REDIS, queue_on
from tests.flows.killed_programs import (
    record_embedded,
    record_for_celery,
    record_notifying,
    relay,
    worker,
)
from tests.flows.killing import Scene, end, say
from tests.flows.postgresql import PostgresInstance, children, postgres_instance

USUAL = 52
KILLS = int(os.environ.get("CLARION_TEST_KILLS", USUAL))

pytestmark = pytest.mark.timeout(120 * max(1.0, KILLS / USUAL))


def share(kills: int) -> int:
    """How often to kill where it is ``kills`` times of the usual number."""
    return max(1, round(kills * KILLS / USUAL))


@pytest.fixture
def instance() -> Iterator[PostgresInstance]:
    try:
        with postgres_instance() as found:
            yield found
    except FileNotFoundError as error:
        pytest.skip(str(error))


def test_the_application_with_its_embedded_engine_on_sqlite(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    with Scene(url, seed=1, directory=tmp_path) as scene:
        for _ in range(share(16)):
            application = scene.start(record_embedded, url, str(scene.accepted))
            scene.arrivals.wait_for_more(20)
            scene.some_time()
            scene.kill(application)
        scene.start(record_embedded, url, None)
        scene.wait_until_nothing_is_pending()
        say("embedded engine, SQLite", scene.reckon())


def test_the_application_and_the_relay_process_on_postgresql(empty_postgres_url: str, tmp_path: Path) -> None:
    url = empty_postgres_url
    with Scene(url, seed=2, directory=tmp_path) as scene:
        application = scene.start(record_notifying, url, str(scene.accepted))
        relaying = scene.start(relay, url)
        for number in range(share(16)):
            scene.arrivals.wait_for_more(20)
            scene.some_time()
            if number % 4 == 3:
                scene.kill(application, relays=False)
                application = scene.start(record_notifying, url, str(scene.accepted))
            else:
                scene.kill(relaying)
                relaying = scene.start(relay, url)
        scene.kill(application, relays=False)
        scene.wait_until_nothing_is_pending()
        say("relay process, PostgreSQL", scene.reckon())


@pytest.mark.parametrize(("broker", "kills"), [(AMQP, 6), (REDIS, 6)], ids=["rabbitmq", "redis"])
def test_the_celery_worker(broker: str, kills: int, empty_postgres_url: str, tmp_path: Path) -> None:
    url = empty_postgres_url
    with queue_on(broker) as queue, Scene(url, seed=3, directory=tmp_path) as scene:
        application = scene.start(record_for_celery, url, str(scene.accepted), broker, queue)
        working = scene.start(worker, url, broker, queue)
        for number in range(share(kills)):
            scene.arrivals.wait_for_more(20)
            scene.some_time()
            if number % 2:
                kill_one_child(working, scene)
            else:
                scene.kill(working)
                working = scene.start(worker, url, broker, queue)
        scene.kill(application, relays=False)
        scene.wait_until_nothing_is_pending()
        end(working)
        say(f"Celery, {broker.partition(':')[0]}", scene.reckon())


def kill_one_child(working: ForkServerProcess, scene: Scene) -> None:
    """SIGKILL to one process of a worker's pool, which the worker then replaces."""
    os.kill(scene.random.choice(children(working.pid or 0)), signal.SIGKILL)
    scene.killed()


def test_postgresql_itself(instance: PostgresInstance, tmp_path: Path) -> None:
    with Scene(instance.url, seed=4, directory=tmp_path) as scene:
        application = scene.start(record_notifying, instance.url, str(scene.accepted))
        scene.start(relay, instance.url)
        for _ in range(share(8)):
            scene.arrivals.wait_for_more(20)
            scene.some_time()
            scene.engine.dispose()
            instance.kill()
            instance.start()
            scene.killed()
        scene.kill(application, relays=False)
        scene.wait_until_nothing_is_pending()
        say("PostgreSQL itself", scene.reckon())
