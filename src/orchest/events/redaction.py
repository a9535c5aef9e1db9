"""Hiding secrets in what subscribers see: parameters whose name, mark or form says that they are secret."""

import re
from collections.abc import Collection, Mapping
from typing import Any

REDACTED = "[redacted]"

SECRET_NAME = re.compile(
    r"passw(or)?d|passphrase|passcode|(^|db_?|user_?|smtp_?|ftp_?|admin_?|root_?)pass$|pwd|secret|credential|"
    r"token([^a-z]|$)|(access|api|auth|refresh)[^a-z]*tokens|cookie|bearer|hmac|"
    r"(api|access|private|encryption|signing|account|shared)[^a-z0-9]*key|(^|[^a-z])(auth|authorization|dsn|sas|pin|otp)([^a-z]|$)|"
    r"connection[^a-z0-9]*(string|url)",
)
"""Names that promise a secret; matched against the name in words (``dbPassword`` reads ``db_password``)."""

SECRET_VALUE = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY|"  # PEM
    r"\b[a-z][a-z0-9+.-]*://[^/\s:@]*:[^/\s@]+@|"  # password in a URL
    r"\b(ghp|gho|ghs|ghu|github_pat|glpat|xox[abeprs]|sk|rk|pypi|hf|npm|dop_v1|whsec)[_-][A-Za-z0-9_-]{10,}|"
    r"\b(AKIA|ASIA)[A-Z0-9]{16}\b|\bAIza[A-Za-z0-9_-]{30,}|"  # AWS, Google
    r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.|"  # JSON web token
    r"\b(Bearer|Basic) [A-Za-z0-9+/=_.-]{12,}",
)

MAX_DEPTH = 20


def looks_secret(name: str) -> bool:
    """Whether a name promises a secret."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    return SECRET_NAME.search(words) is not None


def redact(values: Mapping[str, Any], marked: Collection[str] = ()) -> dict[str, Any]:
    """``values`` with the secret ones hidden, at any depth: by name, by ``marked`` name, or by form."""
    hidden = frozenset(marked)
    return {name: _redact(name, value, hidden, MAX_DEPTH) for name, value in values.items()}


def _redact(name: str, value: Any, marked: frozenset[str], depth: int) -> Any:
    if name in marked or looks_secret(name) or depth == 0:
        return REDACTED
    if isinstance(value, Mapping):
        return {str(key): _redact(str(key), item, marked, depth - 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_redact("", item, marked, depth - 1) for item in value]
    if isinstance(value, str) and SECRET_VALUE.search(value):
        return REDACTED
    return value


def marked_parameters(definition: Mapping[str, Any]) -> frozenset[str]:
    """The parameters a pipeline's author marked: ``settings.secret_parameters``, a list of names."""
    settings = definition.get("settings")
    names = settings.get("secret_parameters") if isinstance(settings, Mapping) else None
    return (
        frozenset(name for name in names if isinstance(name, str)) if isinstance(names, list) else frozenset()
    )
