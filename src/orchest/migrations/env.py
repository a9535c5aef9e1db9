"""Alembic's environment for the platform: Clarion's, with the platform's tables."""

from clarion import migrations
from orchest import events
from orchest.models import Base

migrations.run([Base.metadata], app=[events.__name__])
