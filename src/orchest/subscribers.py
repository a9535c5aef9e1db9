"""Who is told of what happens on the platform: webhooks, their subscriptions, and pings."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, inspect, select
from sqlalchemy.orm import Session

from clarion.addresses import EgressPolicy
from clarion.catalogue import Catalogue, EventType
from clarion.deliverees import Webhook, WebhookDeliveree
from clarion.egress import Egress
from clarion.errors import (
    InvalidAddress,
    InvalidInput,
    InvalidSecret,
    InvalidSubscriber,
    InvalidSubscription,
    NotFound,
)
from clarion.formats import format_named
from clarion.messages import Answer, Failure, Message, Response
from clarion.outbox import delete_subscriber
from clarion.outcomes import Delivered, Outcome
from clarion.subscriptions import EVERYWHERE, Subscriber, Subscription, subscribe, subscription, wanting
from orchest.errors import FieldProblem, InvalidFields
from orchest.events import CATALOGUE, DebugPingEvent
from orchest.models import Job, Pipeline, Project
from orchest.site import Site

SUBSCRIBABLE = Catalogue(cls for cls in CATALOGUE.recorded.classes if cls is not DebugPingEvent)
"""What one can be told of: all that is recorded but the analytics' own ping."""

USUAL_FORMAT = "orchest"
"""The original's: who names no format wrote their receiver for the original platform."""

PROJECT, JOB, PIPELINE = "project_uuid", "job_uuid", "pipeline_uuid"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a subscription asks for: a type or pattern, and where."""

    event_type: str
    project_uuid: str | None = None
    job_uuid: str | None = None
    pipeline_uuid: str | None = None

    @property
    def scope(self) -> str:
        """As Clarion writes it. Raises InvalidSubscription when it is no place."""
        if self.job_uuid and self.pipeline_uuid:
            raise InvalidSubscription("no event lies both in a job and in a pipeline; give one of them")
        if (self.job_uuid or self.pipeline_uuid) and not self.project_uuid:
            raise InvalidSubscription("give the project_uuid too: a job or a pipeline lies in a project")
        parts = (("project", self.project_uuid), ("job", self.job_uuid), ("pipeline", self.pipeline_uuid))
        return "/".join(f"{layer}/{uuid}" for layer, uuid in parts if uuid)

    @classmethod
    def of(cls, row: Subscription) -> "Wanted":
        parts = row.scope.split("/") if row.scope else []
        place = dict(zip(parts[::2], parts[1::2], strict=True))
        return cls(row.pattern, place.get("project"), place.get("job"), place.get("pipeline"))


@dataclass(frozen=True, slots=True)
class WebhookValues:
    """What a webhook is made of. No ``secret`` or ``format``: it keeps its own, or gets one."""

    name: str
    url: str
    verify_ssl: bool = True
    content_type: str = "application/json"
    secret: str | None = None
    format: str | None = None


@dataclass(frozen=True, slots=True)
class Pinged:
    """What came of a ping."""

    outcome: Outcome
    answer: Answer

    @property
    def delivered(self) -> bool:
        return isinstance(self.outcome, Delivered)

    @property
    def status(self) -> int | None:
        return self.answer.status if isinstance(self.answer, Response) else None


def optional_filters(event_type: EventType) -> list[list[str]]:
    """The filters a subscription to this type may have, each a list of fields to give together."""
    layers = event_type.scope_layers
    filters = [[PROJECT]] if layers[:1] == ("project",) else []
    if layers[1:2] == ("job",):
        filters.append([PROJECT, JOB])
    if layers[1:2] == ("pipeline",):
        filters.append([PROJECT, PIPELINE])
    return filters


def visible() -> ColumnElement[bool]:
    """Subscribers that are shown: not the one that telemetry goes to."""
    kinds = [m.polymorphic_identity for m in inspect(Subscriber).self_and_descendants if not m.class_.hidden]
    return Subscriber.kind.in_(kinds)


def find_subscriber(session: Session, uuid: str, *, lock: bool = False) -> Subscriber:
    """A subscriber that is shown. Raises NotFound."""
    query = select(Subscriber).where(Subscriber.uuid == UUID(uuid), visible())
    found = session.scalar(query.with_for_update() if lock else query)
    if found is None:
        raise NotFound(f"there is no subscriber {uuid}")
    return found


def create_webhook(
    session: Session, site: Site, policy: EgressPolicy, values: WebhookValues, wants: Sequence[Wanted]
) -> Webhook:
    """A webhook with its subscriptions.

    Raises:
        InvalidFields: names what cannot be used; nothing was written.
    """
    webhook = new_webhook(policy, values, site.clock())
    pairs = checked(session, wants)
    session.add(webhook)
    session.flush()
    subscribe(session, SUBSCRIBABLE, webhook, pairs)
    session.flush()
    return webhook


def update_webhook(
    session: Session, policy: EgressPolicy, uuid: str, values: WebhookValues, wants: Sequence[Wanted]
) -> Webhook:
    """Make a webhook what is given; without a secret it keeps the one it has.

    Raises:
        NotFound: there is no such webhook.
        InvalidFields: names what cannot be used; nothing was written.
    """
    webhook = find_subscriber(session, uuid, lock=True)
    if not isinstance(webhook, Webhook):
        raise NotFound(f"there is no webhook {uuid}; it is a {webhook.kind}")
    changed = new_webhook(policy, values, webhook.created_at, kept=webhook)
    pairs = checked(session, wants)
    for column in ("name", "url", "verify_ssl", "content_type", "format", "secret"):
        setattr(webhook, column, getattr(changed, column))
    subscribe(session, SUBSCRIBABLE, webhook, pairs)
    session.flush()
    return webhook


def new_webhook(
    policy: EgressPolicy, values: WebhookValues, now: datetime, *, kept: Webhook | None = None
) -> Webhook:
    """A webhook that is not stored; what is not given is as in ``kept``. Raises InvalidFields."""
    secret = values.secret if values.secret is not None or kept is None else kept.secret
    format = values.format or (kept.format if kept is not None else USUAL_FORMAT)
    try:
        format_named(format or "")
    except InvalidSubscriber as error:
        raise InvalidFields([FieldProblem("/format", error.message)]) from None
    try:
        policy.check_url(values.url)
        return Webhook(
            name=values.name,
            url=values.url,
            verify_ssl=values.verify_ssl,
            content_type=values.content_type,
            format=format,
            created_at=now,
            **({} if secret is None else {"secret": secret}),
        )
    except InvalidAddress as error:
        raise InvalidFields([FieldProblem("/url", error.message)]) from None
    except InvalidSecret as error:
        raise InvalidFields([FieldProblem("/secret", error.message)]) from None
    except InvalidInput as error:
        field = "/name" if "name" in error.message else "/content_type"
        raise InvalidFields([FieldProblem(field, error.message)]) from None


def checked(session: Session, wants: Sequence[Wanted]) -> list[tuple[str, str]]:
    """Pairs of pattern and scope. Raises InvalidFields, which names each that can never match."""
    pairs, problems = [], []
    for index, wanted in enumerate(wants):
        try:
            pairs.append((wanted.event_type, checked_scope(session, wanted)))
        except InvalidSubscription as error:
            problems.append(FieldProblem(f"/subscriptions/{index}", error.message))
    if problems:
        raise InvalidFields(problems)
    return pairs


def checked_scope(session: Session, wanted: Wanted) -> str:
    """The scope of a subscription that can match. Raises InvalidSubscription, which says why it cannot."""
    scope = wanted.scope
    subscription(SUBSCRIBABLE, wanted.event_type, scope)
    if wanted.project_uuid and session.get(Project, wanted.project_uuid) is None:
        raise InvalidSubscription(f"there is no project {wanted.project_uuid}, so nothing happens in it")
    if wanted.job_uuid:
        job = session.get(Job, wanted.job_uuid)
        if job is None or job.project_uuid != wanted.project_uuid:
            raise InvalidSubscription(f"project {wanted.project_uuid} has no job {wanted.job_uuid}")
    if wanted.pipeline_uuid and session.get(Pipeline, (wanted.project_uuid, wanted.pipeline_uuid)) is None:
        raise InvalidSubscription(f"project {wanted.project_uuid} has no pipeline {wanted.pipeline_uuid}")
    return scope


def subscribed_to(session: Session, wanted: Wanted) -> Sequence[Subscriber]:
    """Who would be told of an event of exactly this type there.

    Raises:
        NotFound: there is no such type.
        InvalidSubscription: its events never lie there.
    """
    event_type = SUBSCRIBABLE[wanted.event_type]
    scope = wanted.scope
    subscription(SUBSCRIBABLE, event_type.name, scope)
    query = wanting(event_type.name, scope or EVERYWHERE).where(visible())
    return session.scalars(query.order_by(Subscriber.id)).all()


def set_enabled(session: Session, uuid: str, enabled: bool) -> Subscriber:
    """Switch a subscriber on or off. Off, nothing new is for it, and what waits for it goes on waiting."""
    subscriber = find_subscriber(session, uuid, lock=True)
    subscriber.enabled = enabled
    session.flush()
    return subscriber


def remove_subscriber(session: Session, site: Site, uuid: str) -> None:
    """Delete a subscriber; what waits for it is cancelled. Raises NotFound."""
    delete_subscriber(session, find_subscriber(session, uuid, lock=True), site.clock())


def ping_message(now: datetime) -> Message:
    """A message that says nothing but that it came, rendered as a recorded event would be."""
    event = DebugPingEvent("")
    notification, _ = event.freeze(Session(), now, None)
    return Message(
        uuid=event.uuid,
        type=event.type,
        occurred_at=event.occurred_at,
        sequence=None,
        attempt=1,
        notification=notification,
    )


async def ping(policy: EgressPolicy, deliveree: WebhookDeliveree, now: datetime) -> Pinged:
    """Send a signed ping as a delivery would be sent. No transaction is open meanwhile."""
    message = ping_message(now)
    async with Egress(policy, connections=1) as egress:
        answer = await egress.send(deliveree.request([message], now))
    return Pinged(deliveree.judge([message], answer, now)[0], answer)


def said(answer: Answer) -> tuple[str | None, str]:
    """Why there was no answer, if there was none, and what was answered or went wrong."""
    match answer:
        case Failure(reason=reason, message=message):
            return reason.value, message
        case Response(body=body):
            return None, body.decode("utf-8", "replace")
