"""The access token of an installation: made once, shown once, kept as a hash."""

from datetime import datetime

from sqlalchemy.orm import Session

from orchest.api.security import hash_of, new_token
from orchest.models import Setting

KEY = "access_token_hash"


def token_hash(session: Session) -> str | None:
    """The hash of the token, if one was ever made."""
    setting = session.get(Setting, KEY)
    return None if setting is None else str(setting.value)


def make_token(session: Session, now: datetime) -> str:
    """A new token; the one before is no longer taken. Show it: nobody can read it again."""
    token = new_token()
    setting = session.get(Setting, KEY)
    if setting is None:
        session.add(Setting(key=KEY, value=hash_of(token), changed=now))
    else:
        setting.value, setting.changed = hash_of(token), now
    session.flush()
    return token
