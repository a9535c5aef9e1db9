"""Alembic's environment where the application brings none."""

from clarion import migrations

migrations.run()
