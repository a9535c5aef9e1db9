"""Every error Clarion raises, and the reasons an attempt can fail.

ClarionError                      500
├── DeclarationError              500   an event class is wrong; raised when it is defined
├── InvalidInput                  422
│   ├── InvalidEvent              422   an event was built with wrong fields, or an unknown verb
│   ├── InvalidSubscription       422   a pattern or a scope that can never match
│   ├── InvalidSubscriber         422   a URL, secret, format or setting no delivery could use
│   ├── InvalidSecret             422   a signing secret that cannot be decoded or is too short
│   └── InvalidAddress            422   a URL that egress would never call
├── Forbidden                     403
├── NotFound                      404
├── Conflict                      409   the row is not in a state that allows this
├── VerificationError             400   a received webhook is not authentic
└── ConfigurationError            500   a setting, an extra or a migration is missing; says which
"""

from enum import StrEnum


class ClarionError(Exception):
    """Something Clarion could not do."""

    status = 500
    """The HTTP status an API answers with when this error reaches its edge (RFC 9110)."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())

    @property
    def message(self) -> str:
        return str(self.args[0])


class DeclarationError(ClarionError):
    """An event class is declared wrongly."""


class InvalidInput(ClarionError):
    """What was given cannot be used."""

    status = 422


class InvalidEvent(InvalidInput):
    """An event was built with wrong or missing fields."""


class InvalidSubscription(InvalidInput):
    """A subscription that can never match."""


class InvalidSubscriber(InvalidInput):
    """A subscriber that could never be told anything."""


class InvalidSecret(InvalidInput):
    """A signing secret is not usable."""


class InvalidAddress(InvalidInput):
    """A URL that could never be called."""


class Forbidden(ClarionError):
    """Whoever asks may not."""

    status = 403


class NotFound(ClarionError):
    """There is no such row."""

    status = 404


class Conflict(ClarionError):
    """The row is not in a state that allows this."""

    status = 409


class VerificationError(ClarionError):
    """A received webhook is not authentic."""

    status = 400


class ConfigurationError(ClarionError):
    """A setting, an extra or a migration is missing."""


class Reason(StrEnum):
    """Why an attempt did not deliver: a closed list, safe as a metric label.

    ``internal`` is a fault of ours and never counts against the subscriber.
    """

    DNS = "dns"
    BLOCKED = "blocked"
    CONNECT = "connect"
    TLS = "tls"
    TIMEOUT = "timeout"
    REDIRECT = "redirect"
    HTTP_4XX = "http_4xx"
    HTTP_5XX = "http_5xx"
    GONE = "gone"
    THROTTLED = "throttled"
    PROTOCOL = "protocol"
    INTERNAL = "internal"
