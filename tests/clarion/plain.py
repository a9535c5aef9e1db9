"""The smallest subscriber kind: posts the notification as it is. For tests of the outbox and the relay."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy.orm import Mapped, Session, mapped_column

from clarion.catalogue import catalogue
from clarion.errors import Reason
from clarion.messages import Answer, Message, Request, Response
from clarion.outcomes import Delivered, Outcome, Retry
from clarion.subscriptions import Subscriber, subscribe


@dataclass(frozen=True)
class PlainDeliveree:
    url: str
    batch: int = 1

    def request(self, messages: Sequence[Message], now: datetime) -> Request:
        return Request(
            self.url, (messages[0].notification or "").encode(), {"webhook-id": messages[0].id}, timeout=5
        )

    def judge(self, messages: Sequence[Message], answer: Answer, now: datetime) -> Sequence[Outcome]:
        if isinstance(answer, Response):
            return [Delivered() if answer.status < 300 else Retry(Reason.HTTP_5XX, f"status {answer.status}")]
        return [Retry(answer.reason, answer.message)]


class Plain(Subscriber):
    __mapper_args__ = {"polymorphic_identity": "plain"}

    target: Mapped[str | None] = mapped_column()

    def deliveree(self) -> PlainDeliveree:
        return PlainDeliveree(self.target or "")


NOW = datetime(2026, 1, 1, tzinfo=UTC)


def add_plain(session: Session, target: str, *wants: str, scope: str = "", **values: object) -> Plain:
    """A plain subscriber to the patterns ``wants``, committed."""
    subscriber = Plain(name="plain", target=target, created_at=NOW, **values)
    session.add(subscriber)
    session.flush()
    subscribe(session, catalogue(["tests.clarion.sample"]), subscriber, [(want, scope) for want in wants])
    session.commit()
    return subscriber
