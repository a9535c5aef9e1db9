"""Webhooks: a subscriber that is told by an HTTP POST to its own URL.

What an answer means: 2xx is delivered. 410 is dead at once: the receiver says it is gone for good.
Everything else is tried again by the schedule, a blocked address too, because an operator can allow it
in time and what was due meanwhile then arrives. A redirect is a failure and is never followed: it would
carry a signed body to a place nobody subscribed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any

from sqlalchemy import Boolean, CheckConstraint, Connection, Float, String, Table, event
from sqlalchemy.orm import Mapped, Mapper, mapped_column, validates

from clarion.addresses import parse_url
from clarion.errors import InvalidAddress, InvalidSecret, InvalidSubscriber, Reason
from clarion.formats import JSON, Addressee, format_named
from clarion.messages import Answer, Failure, Message, Request, Response
from clarion.outcomes import Dead, Delivered, Outcome, Retry
from clarion.retry import parse_retry_after
from clarion.signing import new_secret
from clarion.subscriptions import Subscriber

TIMEOUT = 15.0
"""Seconds a request may take, unless the webhook has its own."""
SHORTEST_TIMEOUT, LONGEST_TIMEOUT = 1.0, 30.0
MAX_SECRET = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookDeliveree(Addressee):
    """Builds a webhook's requests and judges its answers."""

    url: str
    format: str = "standard"
    timeout: float = TIMEOUT

    @property
    def batch(self) -> int:
        """One: a receiver verifies, and deduplicates by, one message a request."""
        return 1

    def request(self, messages: Sequence[Message], now: datetime) -> Request:
        """The signed POST for one message. Raises ValueError for another number of them."""
        if len(messages) != 1:
            raise ValueError(f"A webhook request carries one message, not {len(messages)}.")
        message = messages[0]
        format = format_named(self.format)
        body = format.body(message, self)
        return Request(
            url=self.url,
            body=body,
            headers=format.headers(message, self, body, now),
            timeout=self.timeout,
            verify_tls=self.verify_ssl,
        )

    def judge(self, messages: Sequence[Message], answer: Answer, now: datetime) -> Sequence[Outcome]:
        return [judge(answer, now)] * len(messages)


def judge(answer: Answer, now: datetime) -> Outcome:
    """What one answer to a webhook means (see the module's text)."""
    match answer:
        case Failure(reason=reason, message=message):
            return Retry(reason, message)
        case Response(status=status) if 200 <= status < 300:
            return Delivered()
        case Response(status=status, headers=headers):
            return _refused(status, headers.get("retry-after"), headers.get("location"), now)


def _refused(status: int, retry_after: str | None, location: str | None, now: datetime) -> Outcome:
    said = f"The receiver answered {status} {_phrase(status)}".rstrip()
    if status == 410:
        return Dead(Reason.GONE, f"{said}: it wants no more.")
    if status == 429:
        return Retry(Reason.THROTTLED, f"{said}.", parse_retry_after(retry_after, now))
    if 300 <= status < 400:
        where = f" to {location[:200]}" if location else ""
        return Retry(
            Reason.REDIRECT,
            f"{said}{where}: redirects are never followed; change the webhook's URL if it moved.",
        )
    if 400 <= status < 500:
        return Retry(Reason.HTTP_4XX, f"{said}.")
    if 500 <= status < 600:
        after = parse_retry_after(retry_after, now) if status == 503 else None
        return Retry(Reason.HTTP_5XX, f"{said}.", after)
    return Retry(Reason.PROTOCOL, f"{said}: that is no final answer in HTTP.")


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


class Webhook(Subscriber):
    """A webhook's row. A value no delivery could use is refused when it is set, or at the latest when
    it is flushed: InvalidAddress, InvalidSecret or InvalidSubscriber, all InvalidInput.

    The URL is only understood here, since a row does not know the installation's egress policy: an
    interface that takes a URL from someone also asks ``EgressPolicy.check_url``.
    """

    url: Mapped[str | None] = mapped_column(String(2048), use_existing_column=True)
    secret: Mapped[str | None] = mapped_column(String(MAX_SECRET), use_existing_column=True)
    format: Mapped[str | None] = mapped_column(String(32), use_existing_column=True)
    content_type: Mapped[str | None] = mapped_column(String(64), use_existing_column=True)
    verify_ssl: Mapped[bool | None] = mapped_column(Boolean(), use_existing_column=True)
    timeout: Mapped[float | None] = mapped_column(Float(), use_existing_column=True)
    """Seconds for a whole request, 1 to 30."""

    __mapper_args__ = {"polymorphic_identity": "webhook"}

    def __init__(self, **values: Any) -> None:
        """``name``, ``url`` and ``created_at`` are needed; a secret is made unless one is given."""
        defaults = {"format": "standard", "content_type": JSON, "verify_ssl": True, "timeout": TIMEOUT}
        super().__init__(**{**defaults, "secret": new_secret(), **values})
        self.check()

    def check(self) -> None:
        """Whether format, content type and secret go together. Raises InvalidSubscriber or InvalidSecret."""
        if self.url is None:
            raise InvalidAddress("A webhook has a URL.")
        format = format_named(self.format or "")
        if self.content_type not in format.content_types:
            allowed = " or ".join(format.content_types)
            raise InvalidSubscriber(
                f"The format {format.name} is sent as {allowed}, not {self.content_type!r}."
            )
        format.check_secret(self.secret or "")

    def deliveree(self) -> WebhookDeliveree:
        return WebhookDeliveree(
            uuid=self.uuid,
            name=self.name,
            url=self.url or "",
            secrets=(self.secret or "",),
            format=self.format or "",
            content_type=self.content_type or JSON,
            verify_ssl=self.verify_ssl is not False,
            timeout=self.timeout or TIMEOUT,
        )

    @validates("url")
    def check_url(self, _key: str, value: Any) -> str:
        if not isinstance(value, str):
            raise InvalidAddress("A webhook's URL is a text such as https://example.com/hook.")
        parse_url(value)
        return value

    @validates("secret")
    def check_secret(self, _key: str, value: Any) -> str:
        if not isinstance(value, str) or not value.strip():
            raise InvalidSecret("A signing secret is not empty; leave it out to have one made.")
        if len(value) > MAX_SECRET or not value.isprintable():
            raise InvalidSecret(f"A signing secret has at most {MAX_SECRET} printable characters.")
        return value

    @validates("format")
    def check_format(self, _key: str, value: Any) -> str:
        return format_named(value).name

    @validates("verify_ssl")
    def check_verify_ssl(self, _key: str, value: Any) -> bool:
        if not isinstance(value, bool):
            raise InvalidSubscriber("verify_ssl is true or false.")
        return value

    @validates("timeout")
    def check_timeout(self, _key: str, value: Any) -> float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not SHORTEST_TIMEOUT <= value <= LONGEST_TIMEOUT:
            raise InvalidSubscriber(
                f"A webhook's timeout is {SHORTEST_TIMEOUT:g} to {LONGEST_TIMEOUT:g} seconds, not {value!r}."
            )
        return float(value)


_WEBHOOK_COLUMNS = ("url", "secret", "format", "content_type", "verify_ssl", "timeout")

if isinstance(Subscriber.__table__, Table):
    Subscriber.__table__.append_constraint(
        CheckConstraint(
            "kind <> 'webhook' OR (" + " AND ".join(f"{c} IS NOT NULL" for c in _WEBHOOK_COLUMNS) + ")",
            name="webhook",
        )
    )


@event.listens_for(Webhook, "before_insert")
@event.listens_for(Webhook, "before_update")
def _check_before_flush(_mapper: Mapper[Webhook], _connection: Connection, webhook: Webhook) -> None:
    webhook.check()
