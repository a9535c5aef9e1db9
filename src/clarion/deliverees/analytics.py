"""Analytics: the hidden subscriber that telemetry goes to, in batches, in an official wire format.

What an answer means: 200 is delivered, or what it says of each event where the format has verdicts. 400 and
413 blame one message of several: the batch is halved until it stands alone, and dies with the reason.
408, 425, 429 and 5xx are tried again for a week, at most an hour apart; any other refusal is final.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, Session, mapped_column, relationship

from clarion import consent, gate
from clarion.anonymous import pseudonym_uuid
from clarion.backlog import purge
from clarion.deliverees.backends import BATCH, Backend, Envelope, Sent, backend_named
from clarion.errors import ConfigurationError, InvalidEvent, Reason
from clarion.losses import KIND
from clarion.messages import Answer, Failure, Message, Request, Response
from clarion.outcomes import Dead, Delivered, Outcome, Retry
from clarion.retry import Backoff, parse_retry_after
from clarion.subscriptions import Subscriber
from clarion.telemetry import TelemetryState, installation_of

TIMEOUT = 15.0
"""Seconds a request may take."""

GRACE = 0.5
"""Seconds a request may still take when its relay ends: nobody waits for telemetry. What was cut is sent
again, under the same ids."""

BACKOFF = Backoff()
"""Waits up to an hour, for up to a week; a backend that takes nothing is left alone as long."""

AGAIN = frozenset({408, 425})
ONE_OF_MANY = frozenset({400, 413})


@dataclass(frozen=True, slots=True)
class AnalyticsDeliveree:
    """Builds requests of up to 100 messages and judges the answers."""

    backend: Backend
    url: str
    write_key: str = field(repr=False)
    envelope: Envelope
    key: bytes = field(repr=False)
    """What pseudonyms are made with now: what was made with another one may not leave under this id."""

    @property
    def batch(self) -> int:
        return BATCH

    def request(self, messages: Sequence[Message], now: datetime) -> Request:
        """The POST for these messages; its body is what `clarion telemetry preview` shows.

        Raises InvalidEvent, with the first's reason, if none of them may leave.
        """
        events = self.events(messages)
        if not events:
            raise InvalidEvent(self.withheld(messages[0]))
        return Request(
            url=self.url.rstrip("/") + self.backend.path,
            body=self.body(messages, now),
            headers=self.backend.headers(self.write_key, events, messages[0].attempt, now),
            timeout=TIMEOUT,
        )

    def body(self, messages: Sequence[Message], now: datetime) -> bytes:
        """The exact bytes for these messages if they are sent now: the only function that makes them."""
        return self.backend.body(self.write_key, self.events(messages), now)

    def events(self, messages: Sequence[Message]) -> list[Sent]:
        """What is sent of these messages: those that may not leave are left out."""
        return [self.sent(m) for m in messages if not self.withheld(m)]

    def sent(self, message: Message) -> Sent:
        telemetry = json.loads(message.telemetry or "{}")
        return Sent(message.type, wire_uuid(message), message.occurred_at, telemetry, self.envelope)

    def withheld(self, message: Message) -> str:
        """Why a message is not sent; empty if it is. Asked last, of what is put together."""
        if message.telemetry is None:
            return "It was recorded while telemetry was off, so there is nothing to send."
        if message.sequence is not None and not self.current(message):
            return "It was recorded under a key that was replaced, and would link the new id to the old one."
        problem = gate.refusal(message.type, self.sent(message).properties)
        return problem and f"It may not leave, and was not sent: {problem}."

    def current(self, message: Message) -> bool:
        """Whether a recorded event's pseudonym for itself, if it has one, is of the key there is now."""
        return wire_uuid(message) in (str(message.uuid), str(pseudonym_uuid(self.key, message.uuid)))

    def judge(self, messages: Sequence[Message], answer: Answer, now: datetime) -> Sequence[Outcome]:
        withheld = [self.withheld(m) for m in messages]
        count = withheld.count("")
        verdicts = self.backend.verdicts(answer) if isinstance(answer, Response) else {}
        return [
            Dead(Reason.INTERNAL, why) if why else judged(answer, verdicts.get(wire_uuid(m)), count, now)
            for m, why in zip(messages, withheld, strict=True)
        ]


def judged(answer: Answer, said: tuple[str, str] | None, sent: int, now: datetime) -> Outcome:
    """What an answer to ``sent`` messages means for one of them; ``said`` is what it says of it alone."""
    match answer:
        case Failure(reason=reason, message=message):
            return Retry(reason, message)
        case Response(status=200):
            return verdict(said)
        case Response():
            return refused(answer, sent, now)


def wire_uuid(message: Message) -> str:
    """The id a message is sent under, the same over attempts: an event's pseudonym, or the capture's own."""
    if message.telemetry is not None:
        named = json.loads(message.telemetry)["event_properties"].get("uuid")
        if isinstance(named, str):
            return named
    return str(message.uuid)


def verdict(said: tuple[str, str] | None) -> Outcome:
    match said:
        case None | (("ok" | "warning"), _):
            return Delivered()
        case ("retry", detail):
            return Retry(Reason.HTTP_5XX, f"The backend asked to send this event again: {detail[:200]}")
        case (word, detail):
            return Dead(
                Reason.HTTP_4XX, f"The backend will not take this event ({word[:20]}): {detail[:200]}"
            )


def refused(answer: Response, messages: int, now: datetime) -> Outcome:
    """What a whole request that was not answered 200 means for each of its messages."""
    status = answer.status
    said = f"The backend answered {status}"
    after = parse_retry_after(answer.headers.get("retry-after"), now)
    if status in ONE_OF_MANY and messages > 1:
        return Retry(Reason.HTTP_4XX, f"{said} for a batch of {messages}.", halve=True)
    if status == 429:
        return Retry(Reason.THROTTLED, f"{said}.", after)
    if status in AGAIN:
        return Retry(Reason.HTTP_4XX, f"{said}.", after)
    if 500 <= status < 600:
        return Retry(Reason.HTTP_5XX, f"{said}.", after)
    if 400 <= status < 500:
        return Dead(Reason.HTTP_4XX, f"{said}.")
    if 300 <= status < 400:
        return Dead(Reason.REDIRECT, f"{said}: redirects are never followed.")
    # another 2xx has taken nothing for certain: the official clients also try these again
    return Retry(Reason.PROTOCOL, f"{said}, where only 200 means that the events are kept.")


class AnalyticsSubscriber(Subscriber):
    """The subscriber that telemetry goes to: hidden, all types, told of the anonymous rendering only."""

    telemetry_state_id: Mapped[int | None] = mapped_column(ForeignKey(TelemetryState.id))

    state: Mapped[TelemetryState | None] = relationship()

    __mapper_args__ = {"polymorphic_identity": KIND}

    hidden = True
    grace = GRACE

    def __init__(self, **values: Any) -> None:
        super().__init__(**{"name": "analytics", "reads": "telemetry", **values})

    def schedule(self) -> Backoff:
        return BACKOFF

    def silenced(self) -> bool:
        """Whether telemetry is off now, by this process's environment or the stored setting."""
        return not consent.decide(os.environ, None, None if self.state is None else self.state.stored)

    def withdraw(self, session: Session) -> None:
        """Off forgets what was pending."""
        purge(session)

    def deliveree(self) -> AnalyticsDeliveree:
        """Raises ConfigurationError if telemetry's state is gone or its backend unknown."""
        if self.state is None:
            raise ConfigurationError("the analytics subscriber has no state; configure telemetry again")
        return deliveree_of(self.state)


def deliveree_of(state: TelemetryState, config: Mapping[str, Any] | None = None) -> AnalyticsDeliveree:
    """What sends telemetry as ``state`` says; ``TELEMETRY_UUID`` in the environment stands above its id, and
    so does one in the application's configuration, if that is at hand.

    Raises ConfigurationError for an unknown backend, or if ``TELEMETRY_UUID`` is not a UUID.
    """
    installation = str(installation_of(state, config=config))
    envelope = Envelope(installation, json.dumps(state.app), json.dumps(state.system))
    return AnalyticsDeliveree(backend_named(state.backend), state.url, state.write_key, envelope, state.key)
