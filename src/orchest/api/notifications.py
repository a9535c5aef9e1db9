"""Who is told of what: event types, subscribers and their subscriptions, as the original's clients know them.

A webhook's ``format`` is new; without it a webhook speaks the original's (`subscribers.USUAL_FORMAT`).
"""

from typing import Annotated, Any, Literal, Self

from fastapi import APIRouter, Path, Query, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import Field, StringConstraints
from sqlalchemy import select
from sqlalchemy.orm import Session

from clarion.deliverees import Webhook
from clarion.formats import FORM, JSON, formats
from clarion.outcomes import Delivered
from clarion.subscriptions import Subscriber
from orchest import subscribers
from orchest.api.http import (
    Body,
    Name,
    Once,
    PageQuery,
    Readers,
    Shown,
    ThePlatform,
    TheSite,
    Time,
    Uuid,
    Writers,
    problems,
)
from orchest.errors import FieldProblem, InvalidFields
from orchest.subscribers import Pinged, Wanted, WebhookValues

router = APIRouter(prefix="/api/notifications", tags=["notifications"])

Pattern = Annotated[str, StringConstraints(min_length=1, max_length=255)]
FORMATS = ", ".join(f"`{one.name}`" for one in formats())


class SubscribableEvent(Shown):
    """A type of events one can be told of."""

    name: str
    description: str
    optional_filters: list[list[str]] = Field(
        description="The filters a subscription to it may have; the fields of one are given together."
    )


class SubscribableEvents(Shown):
    """Every type of events one can be told of."""

    events: list[SubscribableEvent]


class SubscriptionBody(Body):
    """What to be told of: a type everywhere, or in a project, a job or a pipeline only."""

    event_type: Pattern = Field(description="A type, or a pattern: `project:cron-job:*`, `*:failed`, `*`.")
    project_uuid: Uuid | None = None
    job_uuid: Uuid | None = Field(default=None, description="With `project_uuid`: of that job only.")
    pipeline_uuid: Uuid | None = Field(default=None, description="With `project_uuid`: of that pipeline.")

    def wanted(self) -> Wanted:
        return Wanted(self.event_type, self.project_uuid, self.job_uuid, self.pipeline_uuid)


class SubscriptionShown(Shown):
    """What a subscriber is told of."""

    event_type: str
    project_uuid: str | None
    job_uuid: str | None
    pipeline_uuid: str | None


class WebhookBody(Body):
    """A webhook."""

    url: str = Field(min_length=1, max_length=2048, description="Where it is told, by POST: http or https.")
    name: Name
    verify_ssl: bool = Field(default=True, description="Whether its certificate must be valid.")
    content_type: Literal["application/json", "application/x-www-form-urlencoded"] = JSON  # type: ignore[assignment]
    secret: str | None = Field(
        default=None,
        max_length=255,
        description="What deliveries are signed with, not empty. Without it one is made, or kept.",
    )
    format: str | None = Field(
        default=None,
        max_length=32,
        description=f"How bodies are written: {FORMATS}; `{subscribers.USUAL_FORMAT}` unless one is named. "
        f"`{FORM}` is for `orchest` only.",
    )
    subscriptions: list[SubscriptionBody] = Field(default=[], max_length=1000)

    def values(self) -> WebhookValues:
        return WebhookValues(
            name=self.name,
            url=self.url,
            verify_ssl=self.verify_ssl,
            content_type=self.content_type,
            secret=self.secret,
            format=self.format,
        )

    def wants(self) -> list[Wanted]:
        return [one.wanted() for one in self.subscriptions]


class SubscriberShown(Shown):
    """A subscriber. What only webhooks have is null for other kinds."""

    uuid: str
    type: str = Field(description="Its kind: `webhook`, ...")
    name: str
    enabled: bool
    created: Time
    url: str | None = None
    verify_ssl: bool | None = None
    content_type: str | None = None
    format: str | None = None

    @classmethod
    def of(cls, subscriber: Subscriber, **more: Any) -> Self:
        own: dict[str, Any] = {}
        if isinstance(subscriber, Webhook):
            own = {key: getattr(subscriber, key) for key in ("url", "verify_ssl", "content_type", "format")}
        return cls(
            uuid=str(subscriber.uuid),
            type=subscriber.kind,
            name=subscriber.name,
            enabled=subscriber.enabled,
            created=subscriber.created_at,
            **own,
            **more,
        )


class SubscriberDetails(SubscriberShown):
    """A subscriber with what it is told of."""

    subscriptions: list[SubscriptionShown]

    @classmethod
    def detailed(cls, subscriber: Subscriber, **more: Any) -> Self:
        wants = [Wanted.of(row) for row in sorted(subscriber.subscriptions, key=lambda row: row.id)]
        shown = [SubscriptionShown.model_validate(wanted) for wanted in wants]
        return cls.of(subscriber, subscriptions=shown, **more)


class CreatedWebhook(SubscriberDetails):
    """A webhook that was just created."""

    secret: str = Field(description="What its deliveries are signed with. It is never shown again.")


class Subscribers(Shown):
    """A page of subscribers."""

    subscribers: list[SubscriberShown]
    next: str | None = Field(default=None, description="Give it as `cursor` to get the next page.")


class PingShown(Shown):
    """What came of a ping."""

    delivered: bool
    status: int | None = Field(description="The status that was answered, if anything was.")
    reason: str | None = Field(description="Why it was not delivered, in one word.")
    detail: str = Field(description="Why it was not delivered, in a sentence.")
    duration_ms: int

    @classmethod
    def of(cls, pinged: Pinged) -> Self:
        failed = None if isinstance(pinged.outcome, Delivered) else pinged.outcome
        return cls(
            delivered=failed is None,
            status=pinged.status,
            reason=None if failed is None else failed.reason.value,
            detail="" if failed is None else failed.detail,
            duration_ms=round(pinged.answer.elapsed * 1000),
        )


@router.get("/subscribable-events")
def list_subscribable_events() -> SubscribableEvents:
    """Every type of events one can subscribe to, with the filters it knows."""
    return SubscribableEvents(
        events=[
            SubscribableEvent(
                name=one.name,
                description=one.description,
                optional_filters=subscribers.optional_filters(one),
            )
            for one in subscribers.SUBSCRIBABLE
        ]
    )


@router.get("/subscribers")
def list_subscribers(page: PageQuery, readers: Readers) -> Subscribers:
    """Who is told of anything, the newest first."""
    with readers() as session:
        query = select(Subscriber).where(subscribers.visible())
        found = page.page(session, query, (Subscriber.id,), SubscriberShown.of)
        return Subscribers(subscribers=found.items, next=found.next)


@router.get("/subscribers/subscribed-to/{event_type}", responses=problems(404))
def list_subscribed_to(
    event_type: Annotated[str, Path(max_length=255)],
    readers: Readers,
    project_uuid: Annotated[Uuid | None, Query()] = None,
    job_uuid: Annotated[Uuid | None, Query()] = None,
    pipeline_uuid: Annotated[Uuid | None, Query()] = None,
) -> Subscribers:
    """Who would be told of an event of this type: of one anywhere, in this project, job or pipeline."""
    with readers() as session:
        wanted = Wanted(event_type, project_uuid, job_uuid, pipeline_uuid)
        found = subscribers.subscribed_to(session, wanted)
        return Subscribers(subscribers=[SubscriberShown.of(one) for one in found])


@router.get("/subscribers/{subscriber_uuid}", responses=problems(404))
def show_subscriber(subscriber_uuid: Uuid, readers: Readers) -> SubscriberDetails:
    """One subscriber, with its subscriptions."""
    with readers() as session:
        return SubscriberDetails.detailed(subscribers.find_subscriber(session, subscriber_uuid))


@router.delete("/subscribers/{subscriber_uuid}", status_code=204, responses=problems(404))
def delete_subscriber(subscriber_uuid: Uuid, sessions: Writers, site: TheSite) -> None:
    """Delete a subscriber. What waits for it is cancelled; what it was told of stays visible."""
    with sessions.begin() as session:
        subscribers.remove_subscriber(session, site, subscriber_uuid)


@router.post("/subscribers/{subscriber_uuid}/enable", responses=problems(404))
def enable_subscriber(subscriber_uuid: Uuid, sessions: Writers, platform: ThePlatform) -> SubscriberDetails:
    """Tell a subscriber again; what waited for it is delivered now."""
    with sessions.begin() as session:
        shown = SubscriberDetails.detailed(subscribers.set_enabled(session, subscriber_uuid, True))
    platform.nudge_relay()
    return shown


@router.post("/subscribers/{subscriber_uuid}/disable", responses=problems(404))
def disable_subscriber(subscriber_uuid: Uuid, sessions: Writers) -> SubscriberDetails:
    """Tell a subscriber nothing until it is enabled again. It misses what happens meanwhile."""
    with sessions.begin() as session:
        return SubscriberDetails.detailed(subscribers.set_enabled(session, subscriber_uuid, False))


@router.post("/subscribers/webhooks", status_code=201, response_model=CreatedWebhook)
def create_webhook(body: WebhookBody, once: Once, platform: ThePlatform) -> Response:
    """Create a webhook. Its secret is in the answer, and is never shown again."""

    def create(session: Session) -> CreatedWebhook:
        webhook = subscribers.create_webhook(
            session, platform.site, platform.policy, body.values(), body.wants()
        )
        return CreatedWebhook.detailed(webhook, secret=webhook.secret)

    return once(body, create)


@router.put("/subscribers/webhooks/{subscriber_uuid}", responses=problems(404))
def update_webhook(
    subscriber_uuid: Uuid, body: WebhookBody, sessions: Writers, platform: ThePlatform
) -> SubscriberDetails:
    """Make a webhook what is given. Without a secret it keeps the one it has."""
    with sessions.begin() as session:
        webhook = subscribers.update_webhook(
            session, platform.policy, subscriber_uuid, body.values(), body.wants()
        )
        return SubscriberDetails.detailed(webhook)


@router.post("/subscribers/webhooks/pre-creation-test-ping-delivery")
async def ping_before_creation(body: WebhookBody, platform: ThePlatform) -> PingShown:
    """Ping a webhook that does not exist yet, signed and sent as deliveries are."""
    now = platform.site.clock()
    webhook = subscribers.new_webhook(platform.policy, body.values(), now)
    return PingShown.of(await subscribers.ping(platform.policy, webhook.deliveree(), now))


@router.post("/subscribers/test-ping-delivery/{subscriber_uuid}", responses=problems(404))
async def ping_subscriber(subscriber_uuid: Uuid, platform: ThePlatform) -> PingShown:
    """Ping a webhook, signed and sent as deliveries are."""

    def load() -> Any:
        with platform.readers() as session:
            found = subscribers.find_subscriber(session, subscriber_uuid)
            if not isinstance(found, Webhook):
                what = f"only webhooks can be pinged; this is a {found.kind}"
                raise InvalidFields([FieldProblem("subscriber_uuid", what, "path")])
            return found.deliveree()

    deliveree = await run_in_threadpool(load)
    return PingShown.of(await subscribers.ping(platform.policy, deliveree, platform.site.clock()))
