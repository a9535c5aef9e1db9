"""Creating once, however often the request is sent.

A request with an ``Idempotency-Key`` header writes its answer in the transaction that does the work. The
same key with the same body gets that answer again, with ``Idempotency-Replayed: true``; with another
body it is refused. Answers are kept for a day.
"""

import hashlib
from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Any

from fastapi import Depends, Header, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from orchest.errors import FieldProblem, InvalidFields
from orchest.models import KeptAnswer
from orchest.platform import Platform

KEPT = timedelta(days=1)
REPLAYED = {"Idempotency-Replayed": "true"}

Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="Any text of your own; the same key and body are carried out once (kept for a day).",
    ),
]


class Creation:
    """How an operation creates: ``return once(body, lambda session: Shown.of(create(session, ...)))``."""

    def __init__(self, request: Request, key: Key = None) -> None:
        self.platform: Platform = request.app.state.platform
        self.operation = f"{request.method} {request.url.path}"
        self.key = key
        self.replayed = False
        """Whether it answered as before, and nothing was done."""

    def __call__(
        self, body: BaseModel, create: Callable[[Session], BaseModel], *, status: int = 201
    ) -> JSONResponse:
        """Call ``create`` in a transaction and answer with what it returns; or answer as before.

        Raises:
            InvalidFields: the key was used with another body.
        """
        fingerprint = hashlib.sha256(body.model_dump_json().encode()).hexdigest()
        try:
            with self.platform.sessions.begin() as session:
                if (kept := self.kept(session, fingerprint)) is not None:
                    return kept
                answer = create(session).model_dump(mode="json")
                self.keep(session, fingerprint, status, answer)
        except IntegrityError:
            # the same request twice at the same moment: the other one has just finished
            with self.platform.readers() as session:
                if (kept := self.kept(session, fingerprint)) is None:
                    raise
                return kept
        return JSONResponse(answer, status)

    def kept(self, session: Session, fingerprint: str) -> JSONResponse | None:
        if self.key is None:
            return None
        found = session.get(KeptAnswer, (self.operation, self.key))
        if found is None or found.created <= self.platform.site.clock() - KEPT:
            return None
        if found.fingerprint != fingerprint:
            what = "was used for another request; take a new key, or send the same body"
            raise InvalidFields([FieldProblem("Idempotency-Key", f"the key {self.key!r} {what}", "header")])
        self.replayed = True
        return JSONResponse(found.answer, found.status, headers=REPLAYED)

    def keep(self, session: Session, fingerprint: str, status: int, answer: Any) -> None:
        if self.key is None:
            return
        now = self.platform.site.clock()
        session.execute(delete(KeptAnswer).where(KeptAnswer.created <= now - KEPT))
        session.add(
            KeptAnswer(
                operation=self.operation,
                key=self.key,
                fingerprint=fingerprint,
                status=status,
                answer=answer,
                created=now,
            )
        )
        session.flush()


Once = Annotated[Creation, Depends()]
"""The parameter of an operation that creates."""
