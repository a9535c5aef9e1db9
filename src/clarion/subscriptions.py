"""Who wants to know: subscribers, their subscriptions, and the one query that matches them to an event.

A subscription is a pattern of types and a scope. Instead of comparing an event with every subscription,
the few patterns and scopes that could match the event are listed and looked up in an index, so matching
costs the same with ten subscribers and with ten thousand.
"""

import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, ClassVar, Protocol
from uuid import UUID

from sqlalchemy import (
    JSON,
    Boolean,
    CheckConstraint,
    ForeignKey,
    Index,
    Select,
    String,
    UniqueConstraint,
    Uuid,
    select,
)
from sqlalchemy.orm import Mapped, Session, mapped_column, relationship, validates
from uuid_utils.compat import uuid7

from clarion import retry
from clarion.catalogue import Catalogue
from clarion.database import Base, BigId, UTCDateTime
from clarion.errors import ClarionError, InvalidSubscriber, InvalidSubscription
from clarion.events import Event
from clarion.messages import Answer, Message, Request
from clarion.outcomes import Outcome

EVERYWHERE = ""
"""The scope that contains all others."""


class Deliveree(Protocol):
    """How one kind of subscriber is told: pure, plain values in and out, no I/O."""

    @property
    def batch(self) -> int:
        """The most messages one request may carry."""
        ...

    def request(self, messages: Sequence[Message], now: datetime) -> Request:
        """What to send for these messages, signed as of ``now``."""
        ...

    def judge(self, messages: Sequence[Message], answer: Answer, now: datetime) -> Sequence[Outcome]:
        """What the answer means for each message, in order."""
        ...


class Subscriber(Base):
    """Who wants to know. Each kind is a subclass with its own columns (single-table inheritance)."""

    __tablename__ = "subscribers"

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    uuid: Mapped[UUID] = mapped_column(Uuid(), unique=True)
    kind: Mapped[str] = mapped_column(String(32))
    name: Mapped[str] = mapped_column(String(255))
    owner: Mapped[str] = mapped_column(String(1024), default=EVERYWHERE)
    """The scope that owns it; it is never told of anything outside."""
    enabled: Mapped[bool] = mapped_column(Boolean(), default=True)
    reads: Mapped[str] = mapped_column(String(16), default="notification")
    """Which rendering it is sent: ``notification`` or ``telemetry``."""
    created_at: Mapped[datetime] = mapped_column(UTCDateTime())
    retry_schedule: Mapped[list[float] | None] = mapped_column(JSON(none_as_null=True))
    """Seconds before each attempt, instead of `retry.DEFAULT`."""

    subscriptions: Mapped[list["Subscription"]] = relationship(
        back_populates="subscriber", cascade="all, delete-orphan", passive_deletes=True
    )

    __table_args__ = (
        CheckConstraint("reads IN ('notification', 'telemetry')", name="reads"),
        {"sqlite_autoincrement": True},  # an id is never used again: deliveries outlive their subscriber
    )
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_abstract": True}

    hidden: ClassVar[bool] = False
    """Neither listed nor deletable through the notification API."""
    grace: ClassVar[float] = math.inf
    """Seconds that a relay which ends lets its requests go on, at most; then they are made again."""

    def __init__(self, **values: Any) -> None:
        super().__init__(**{"uuid": uuid7(), "enabled": True, "owner": EVERYWHERE, **values})

    def deliveree(self) -> Deliveree:
        """The frozen plain value that builds this subscriber's requests and judges the answers."""
        raise NotImplementedError

    def schedule(self) -> retry.Schedule | retry.Backoff:
        """When to try again. Raises InvalidSubscriber for waits out of bounds."""
        return retry.DEFAULT if self.retry_schedule is None else retry.Schedule.of(self.retry_schedule)

    def silenced(self) -> bool:
        """Whether it may not be told anything now; asked whenever something was claimed for it."""
        return False

    def withdraw(self, session: Session) -> None:
        """Take back what is pending for it, in the caller's transaction; called when it is `silenced`."""

    @validates("name")
    def check_name(self, _key: str, value: Any) -> str:
        if not isinstance(value, str) or not value.strip() or len(value) > 255 or not value.isprintable():
            raise InvalidSubscriber("a subscriber's name must be 1 to 255 printable characters")
        return value.strip()


class Subscription(Base):
    """A subscriber wants every event whose type matches ``pattern``, at or below ``scope``."""

    __tablename__ = "subscriptions"

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    subscriber_id: Mapped[int] = mapped_column(ForeignKey(Subscriber.id, ondelete="CASCADE"))
    pattern: Mapped[str] = mapped_column(String(255))
    scope: Mapped[str] = mapped_column(String(1024), default=EVERYWHERE)

    subscriber: Mapped[Subscriber] = relationship(back_populates="subscriptions")

    __table_args__ = (
        UniqueConstraint("subscriber_id", "pattern", "scope"),  # also: the subscriptions of a subscriber
        Index("ix_subscriptions_match", "pattern", "scope", "subscriber_id"),  # who_wants
    )


@lru_cache(maxsize=1024)
def patterns_of(type: str) -> tuple[str, ...]:
    """Every pattern that matches ``type``: itself, ``*``, and a wildcard at each ``:`` from either end."""
    parts = type.split(":")
    prefixes = [":".join(parts[:n]) + ":*" for n in range(1, len(parts))]
    suffixes = ["*:" + ":".join(parts[n:]) for n in range(1, len(parts))]
    return (type, "*", *prefixes, *suffixes)


def scopes_of(scope: str) -> list[str]:
    """``scope`` and every scope that contains it, outermost first."""
    parts = scope.split("/") if scope else []
    return [EVERYWHERE, *("/".join(parts[:n]) for n in range(2, len(parts) + 1, 2))]


def matches(pattern: str, type: str) -> bool:
    """Whether ``pattern`` covers ``type``."""
    return pattern in patterns_of(type)


def subscription(
    catalogue: Catalogue, pattern: str, scope: str = EVERYWHERE, *, owner: str = EVERYWHERE
) -> Subscription:
    """A checked subscription to the types of ``catalogue`` that match ``pattern``, at or below ``scope``.

    Raises:
        InvalidSubscription: no type matches the pattern, the scope is not a path, no matching type can
            ever lie in the scope, or the scope lies outside its subscriber's ``owner`` scope.
    """
    catalogue = catalogue.recorded
    check_pattern(catalogue, pattern)
    layers = check_scope(scope)
    types = [t for t in catalogue if matches(pattern, t.name)]
    if layers and not any(t.scope_layers[: len(layers)] == layers for t in types):
        possible = sorted({"/".join(f"{layer}/..." for layer in t.scope_layers) or "(none)" for t in types})
        raise InvalidSubscription(
            f"{pattern!r} can never happen in scope {scope!r}: "
            f"its events lie in {', '.join(possible)}; leave the scope empty or shorten it"
        )
    if owner not in scopes_of(scope):
        raise InvalidSubscription(f"scope {scope!r} lies outside the subscriber's own scope {owner!r}")
    return Subscription(pattern=pattern, scope=scope)


def check_pattern(catalogue: Catalogue, pattern: str) -> None:
    if not isinstance(pattern, str) or not pattern:
        raise InvalidSubscription("give an event type or a pattern such as 'project:*', '*:failed' or '*'")
    if (
        "*" in pattern
        and pattern != "*"
        and not (pattern.count("*") == 1 and (pattern.endswith(":*") or pattern.startswith("*:")))
    ):
        raise InvalidSubscription(
            f"{pattern!r} is not a pattern; one '*' may stand first ('*:failed'), last ('project:*') or alone"
        )
    if not any(matches(pattern, t.name) for t in catalogue):
        near = catalogue.near(pattern)
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise InvalidSubscription(f"no event type matches {pattern!r}{hint}")


def check_scope(scope: str) -> tuple[str, ...]:
    """The layers a scope names, outermost first."""
    parts = scope.split("/") if scope else []
    if len(parts) % 2 or not all(parts) or len(scope) > 1024:
        raise InvalidSubscription(
            f"{scope!r} is not a scope; write layers and identifiers in turn, "
            "like 'project/P/job/J', or nothing"
        )
    return tuple(parts[::2])


def wanting(type: str, scope: str, *, telemetry: bool = False) -> Select[Any]:
    """The enabled subscribers with a subscription that matches; each once, however many match."""
    scopes = scopes_of(scope)
    told = select(Subscription.subscriber_id).where(
        Subscription.pattern.in_(patterns_of(type)), Subscription.scope.in_(scopes)
    )
    query = select(Subscriber).where(
        Subscriber.enabled, Subscriber.owner.in_(scopes), Subscriber.id.in_(told)
    )
    return query if telemetry else query.where(Subscriber.reads == "notification")


def who_wants(session: Session, event: Event) -> Sequence[Subscriber]:
    """The subscribers that recording ``event`` would tell, by id: one query."""
    return session.scalars(wanting(event.type, event.scope, telemetry=True).order_by(Subscriber.id)).all()


def subscribe(
    session: Session, catalogue: Catalogue, subscriber: Subscriber, wants: Iterable[tuple[str, str]]
) -> None:
    """Make ``wants``, pairs of pattern and scope, the subscriptions of ``subscriber``; the same twice is one.

    Raises:
        InvalidSubscription: one of them can never match; nothing was changed.
        ClarionError: the subscriber is not in this session.
    """
    if subscriber not in session:
        raise ClarionError("add the subscriber to the session first")
    checked = {
        (pattern, scope): subscription(catalogue, pattern, scope, owner=subscriber.owner)
        for pattern, scope in wants
    }
    kept = [s for s in subscriber.subscriptions if (s.pattern, s.scope) in checked]
    present = {(s.pattern, s.scope) for s in kept}
    subscriber.subscriptions = kept + [s for want, s in checked.items() if want not in present]
