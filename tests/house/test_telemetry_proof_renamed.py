"""The renamed world: whatever people call things, telemetry is byte for byte the same, but for pseudonyms.

Stronger than a search for markers: a length, a sort order, a hash or a count of letters would show as well.
And the secret is one: two keys have no pseudonym in common, and nobody without the key can find out a name.
"""

import hashlib
import hmac
import json
import random
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from clarion.anonymous import PSEUDONYM, pseudonym
from clarion.database import Base as ClarionBase
from clarion.database import open_engine
from clarion.deliverees.analytics import deliveree_of
from clarion.deliverees.backends import BACKENDS
from clarion.events import Event
from clarion.messages import Message
from clarion.outbox import Recording, record
from orchest.events import CronJobEvent, about_cron_job
from orchest.models import Base
from tests.house.markers import marker, marker_id
from tests.house.telemetry_world import Renaming, happenings, populate, sending
from tests.orchest.world import LINKS, NOW

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
HEX = re.compile(PSEUDONYM.strip("^$"))
UUIDS = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """A database in memory, in which every world is rolled back."""
    options = {"poolclass": StaticPool, "connect_args": {"check_same_thread": False}}
    engine = open_engine("sqlite://", **options)
    for base in (ClarionBase, Base):
        base.metadata.create_all(engine)
    yield engine
    engine.dispose()


def lived(engine: Engine, renaming: Renaming, key: bytes = KEY) -> list[str]:
    """Every recorded type happens in a renamed world; what is sent of each, in every wire format."""
    recording = Recording(clock=lambda: NOW, telemetry_key=lambda: key)
    with Session(engine, info=recording.info()) as session:
        world = populate(session, renaming)
        events = list(happenings(session, world, renaming))
        record(session, *events)
        told = [message_of(event) for event in events]
        session.rollback()
    senders = [deliveree_of(sending(key, name)) for name in BACKENDS]
    return [sender.request([one], NOW).body.decode() for one in told for sender in senders]


def message_of(event: Event) -> Message:
    return Message(
        event.uuid, event.type, event.occurred_at, event.sequence, 1, None, json.dumps(event.telemetry)
    )


def without_pseudonyms(texts: list[str]) -> str:
    return UUIDS.sub("(uuid)", HEX.sub("(pseudonym)", "\n".join(texts)))


def plainly() -> Renaming:
    return Renaming(lambda original, longest: marker(original)[:longest], marker_id)


@pytest.fixture(scope="module")
def unnamed(engine: Engine) -> str:
    """What every world's telemetry must look like, pseudonyms apart."""
    return without_pseudonyms(lived(engine, plainly()))


NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)


@settings(max_examples=40, deadline=timedelta(seconds=20), suppress_health_check=[HealthCheck.too_slow])
@given(names=st.lists(NAMES, min_size=1, max_size=30), seed=st.integers(0, 2**32))
def test_whatever_things_are_called_telemetry_is_the_same(
    engine: Engine, unnamed: str, names: list[str], seed: int
) -> None:
    chosen = random.Random(seed)

    def name(original: str, longest: int) -> str:
        number = chosen.randrange(10**6) * 1000 + len(chosen_names)
        chosen_names.append(f"{number:x}{names[number % len(names)]}"[:longest])
        return chosen_names[-1]

    def identifier(_original: str) -> str:
        return str(UUID(int=chosen.getrandbits(128), version=4))

    chosen_names: list[str] = []
    renamed = lived(engine, Renaming(name, identifier))
    assert without_pseudonyms(renamed) == unnamed


@pytest.mark.parametrize(
    ("schedule", "other"),
    [("0 4 * * 1", "59 23 * * 6"), ("0 4 * * *", "17 5 * * *"), ("*/5 * * * *", "*/7 * * * *")],
)
def test_of_a_schedule_only_its_kind_is_told(engine: Engine, schedule: str, other: str) -> None:
    def told(text: str) -> str:
        recording = Recording(clock=lambda: NOW, telemetry_key=lambda: KEY)
        with Session(engine, info=recording.info()) as session:
            world = populate(session, plainly())
            event = CronJobEvent("started", **{**about_cron_job(world.cron, LINKS), "job_schedule": text})
            record(session, event)
            session.rollback()
            return without_pseudonyms([json.dumps(event.telemetry)])

    assert told(schedule) == told(other)


def pseudonyms(texts: list[str]) -> set[str]:
    return {found for text in texts for found in HEX.findall(UUIDS.sub("", text))}


def test_two_keys_have_no_pseudonym_in_common_and_one_has_the_same(engine: Engine) -> None:
    first, again = lived(engine, plainly()), lived(engine, plainly())
    other = lived(engine, plainly(), OTHER_KEY)
    assert pseudonyms(first) == pseudonyms(again)
    assert len(pseudonyms(first)) > 8
    assert not pseudonyms(first) & pseudonyms(other)
    assert without_pseudonyms(first) == without_pseudonyms(other)
    for key in (KEY, OTHER_KEY):
        for text in [*first, *other]:
            assert key.hex() not in text
            assert key.decode() not in text


GUESSES: list[Callable[[str, str], str]] = [
    *(
        lambda _, name, how=how: hashlib.new(how, name.encode()).hexdigest()[:32]
        for how in ("md5", "sha1", "sha256", "sha512", "blake2b")
    ),
    lambda kind, name: hashlib.sha256(f"{kind}\0{name}".encode()).hexdigest()[:32],
    *(
        lambda kind, name, key=key: pseudonym(key, kind, name)
        for key in (b"", b"\0" * 32, b"secret", OTHER_KEY)
    ),
    lambda kind, name: hmac.new(kind.encode(), name.encode(), "sha256").hexdigest()[:32],
]


def test_who_knows_every_name_but_not_the_key_finds_none(engine: Engine) -> None:
    renaming = plainly()
    sent = pseudonyms(lived(engine, renaming))
    layers = ("project", "pipeline", "environment", "job", "run", "pipeline_run", "session")
    names = [*renaming.known, *renaming.known.values()]
    guessed = {guess(kind, name) for guess in GUESSES for kind in layers for name in names}
    assert not guessed & sent
    known = {pseudonym(KEY, kind, name) for kind in layers for name in names}
    assert known >= sent  # with the key each is found: the attack itself works


def test_a_layer_s_pseudonyms_do_not_match_another_s() -> None:
    assert pseudonym(KEY, "project", "7") != pseudonym(KEY, "job", "7")


def test_values_any_world_may_hold_do_not_change_the_text(engine: Engine, unnamed: str) -> None:
    """Empty, huge and hostile names, in the same run: the texts cannot depend on what they are made of."""
    hostile: list[Any] = [
        "'; DROP TABLE events; --",
        "\u202e",
        "{project.name}",
        "%s",
        "\\",
        "🦉" * 50,
        "a@b.example",
    ]
    for text in hostile:
        count = iter(range(10**6))
        renaming = Renaming(lambda _, longest, t=text, c=count: f"{next(c)}{t}"[:longest], marker_id)
        assert without_pseudonyms(lived(engine, renaming)) == unnamed
