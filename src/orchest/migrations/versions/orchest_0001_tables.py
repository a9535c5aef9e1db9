# ruff: noqa: E501
"""The platform's tables, its event types and its events' columns.

Revision orchest_0001 of 2026-11-24, after nothing.
"""

import sqlalchemy as sa
from alembic import op

from clarion.database import UTCDateTime
from clarion.migrations.event_types import add_event_types, remove_event_types

revision = "orchest_0001"
down_revision = None
branch_labels = ("orchest",)
depends_on = "clarion_0001"


def upgrade() -> None:
    add_event_types(
        {
            "project:created": "A project. (created)",
            "project:updated": "A project. (updated)",
            "project:deleted": "A project. (deleted)",
            "project:pipeline:created": "A pipeline of a project. (created)",
            "project:pipeline:updated": "A pipeline of a project. (updated)",
            "project:pipeline:deleted": "A pipeline of a project. (deleted)",
            "project:pipeline:interactive-session:started": "An interactive session of a pipeline. (started)",
            "project:pipeline:interactive-session:succeeded": "An interactive session of a pipeline. (succeeded)",
            "project:pipeline:interactive-session:failed": "An interactive session of a pipeline. (failed)",
            "project:pipeline:interactive-session:stopped": "An interactive session of a pipeline. (stopped)",
            "project:pipeline:interactive-session:service-restarted": "An interactive session of a pipeline. (service-restarted)",
            "project:pipeline:interactive-session:pipeline-run:created": "A pipeline run in an interactive session. (created)",
            "project:pipeline:interactive-session:pipeline-run:started": "A pipeline run in an interactive session. (started)",
            "project:pipeline:interactive-session:pipeline-run:succeeded": "A pipeline run in an interactive session. (succeeded)",
            "project:pipeline:interactive-session:pipeline-run:failed": "A pipeline run in an interactive session. (failed)",
            "project:pipeline:interactive-session:pipeline-run:cancelled": "A pipeline run in an interactive session. (cancelled)",
            "project:one-off-job:created": "A job that runs once. (created)",
            "project:one-off-job:updated": "A job that runs once. (updated)",
            "project:one-off-job:started": "A job that runs once. (started)",
            "project:one-off-job:succeeded": "A job that runs once. (succeeded)",
            "project:one-off-job:failed": "A job that runs once. (failed)",
            "project:one-off-job:cancelled": "A job that runs once. (cancelled)",
            "project:one-off-job:deleted": "A job that runs once. (deleted)",
            "project:cron-job:created": "A job that runs on a schedule. (created)",
            "project:cron-job:updated": "A job that runs on a schedule. (updated)",
            "project:cron-job:started": "A job that runs on a schedule. (started)",
            "project:cron-job:failed": "A job that runs on a schedule. (failed)",
            "project:cron-job:cancelled": "A job that runs on a schedule. (cancelled)",
            "project:cron-job:deleted": "A job that runs on a schedule. (deleted)",
            "project:cron-job:paused": "A job that runs on a schedule. (paused)",
            "project:cron-job:unpaused": "A job that runs on a schedule. (unpaused)",
            "project:cron-job:run:started": "A run of a cron job: the batch of pipeline runs that one scheduled time starts. (started)",
            "project:cron-job:run:succeeded": "A run of a cron job: the batch of pipeline runs that one scheduled time starts. (succeeded)",
            "project:cron-job:run:failed": "A run of a cron job: the batch of pipeline runs that one scheduled time starts. (failed)",
            "project:one-off-job:pipeline-run:created": "A pipeline run of a job that runs once. (created)",
            "project:one-off-job:pipeline-run:started": "A pipeline run of a job that runs once. (started)",
            "project:one-off-job:pipeline-run:succeeded": "A pipeline run of a job that runs once. (succeeded)",
            "project:one-off-job:pipeline-run:failed": "A pipeline run of a job that runs once. (failed)",
            "project:one-off-job:pipeline-run:cancelled": "A pipeline run of a job that runs once. (cancelled)",
            "project:one-off-job:pipeline-run:deleted": "A pipeline run of a job that runs once. (deleted)",
            "project:cron-job:run:pipeline-run:created": "A pipeline run of a run of a cron job. (created)",
            "project:cron-job:run:pipeline-run:started": "A pipeline run of a run of a cron job. (started)",
            "project:cron-job:run:pipeline-run:succeeded": "A pipeline run of a run of a cron job. (succeeded)",
            "project:cron-job:run:pipeline-run:failed": "A pipeline run of a run of a cron job. (failed)",
            "project:cron-job:run:pipeline-run:cancelled": "A pipeline run of a run of a cron job. (cancelled)",
            "project:cron-job:run:pipeline-run:deleted": "A pipeline run of a run of a cron job. (deleted)",
            "project:environment:created": "An environment of a project. (created)",
            "project:environment:deleted": "An environment of a project. (deleted)",
            "project:environment:image-build:created": "A build of an environment. (created)",
            "project:environment:image-build:started": "A build of an environment. (started)",
            "project:environment:image-build:succeeded": "A build of an environment. (succeeded)",
            "project:environment:image-build:failed": "A build of an environment. (failed)",
            "project:environment:image-build:cancelled": "A build of an environment. (cancelled)",
            "jupyter:image-build:created": "A build of JupyterLab with the user's set-up script. (created)",
            "jupyter:image-build:started": "A build of JupyterLab with the user's set-up script. (started)",
            "jupyter:image-build:succeeded": "A build of JupyterLab with the user's set-up script. (succeeded)",
            "jupyter:image-build:failed": "A build of JupyterLab with the user's set-up script. (failed)",
            "jupyter:image-build:cancelled": "A build of JupyterLab with the user's set-up script. (cancelled)",
            "debug-ping": "A ping that shows whether the analytics backend can be reached.",
            "view:loaded": "A view of the web application was opened.",
            "alert:shown": "The web application told its user something.",
            "confirm:shown": "The web application asked its user something.",
            "heartbeat-trigger": "The platform runs; sent every 15 minutes by one process of the installation.",
            "project:one-off-job:duplicated": "A job that runs once was copied.",
            "project:cron-job:duplicated": "A job that runs on a schedule was copied.",
            "project:pipeline:saved": "A pipeline definition was saved.",
        }
    )
    op.create_table(
        "jupyter_image_builds",
        sa.Column("uuid", sa.String(length=36), nullable=False),
        sa.Column("image_tag", sa.Integer(), nullable=False),
        sa.Column(
            "status",
            sa.Enum(
                "PENDING",
                "STARTED",
                "SUCCESS",
                "FAILURE",
                "ABORTED",
                name="status",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column("requested", UTCDateTime(), nullable=False),
        sa.Column("started", UTCDateTime(), nullable=True),
        sa.Column("finished", UTCDateTime(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("log_path", sa.Text(), nullable=True),
        sa.Column("image_path", sa.Text(), nullable=True),
        sa.Column("setup_script", sa.Text(), nullable=False),
        sa.Column("gpu_support", sa.Boolean(), nullable=False),
        sa.Column(
            "language",
            sa.Enum(
                "python",
                "r",
                "julia",
                "other",
                name="language",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column("base_is_ours", sa.Boolean(), nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=True),
        sa.Column("heartbeat", UTCDateTime(), nullable=True),
        sa.CheckConstraint(
            "(finished IS NULL) = (status IN ('PENDING', 'STARTED'))",
            name=op.f("ck_jupyter_image_builds_ended"),
        ),
        sa.CheckConstraint("image_tag > 0", name=op.f("ck_jupyter_image_builds_image_tag")),
        sa.PrimaryKeyConstraint("uuid", name=op.f("pk_jupyter_image_builds")),
        sa.UniqueConstraint("image_tag", name=op.f("uq_jupyter_image_builds_image_tag")),
    )
    op.create_index(
        "ix_jupyter_image_builds_unfinished",
        "jupyter_image_builds",
        ["status"],
        unique=False,
        postgresql_where=sa.text("status IN ('PENDING', 'STARTED')"),
        sqlite_where=sa.text("status IN ('PENDING', 'STARTED')"),
    )
    op.create_table(
        "kept_answers",
        sa.Column("operation", sa.String(length=512), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("answer", sa.JSON(), nullable=False),
        sa.Column("created", UTCDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("operation", "key", name=op.f("pk_kept_answers")),
    )
    op.create_index("ix_kept_answers_created", "kept_answers", ["created"], unique=False)
    op.create_table(
        "orchest_settings",
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("value", sa.JSON(), nullable=False),
        sa.Column("changed", UTCDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_orchest_settings")),
    )
    op.create_table(
        "projects",
        sa.Column("uuid", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("env_variables", sa.JSON(), nullable=False),
        sa.Column("created", UTCDateTime(), nullable=False),
        sa.CheckConstraint("name <> ''", name=op.f("ck_projects_name")),
        sa.PrimaryKeyConstraint("uuid", name=op.f("pk_projects")),
        sa.UniqueConstraint("path", name=op.f("uq_projects_path")),
    )
    op.create_index("ix_projects_created", "projects", ["created", "uuid"], unique=False)
    op.create_table(
        "scheduler_leases",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("holder", sa.String(length=255), nullable=True),
        sa.Column("until", UTCDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_scheduler_leases")),
    )
    op.create_table(
        "environments",
        sa.Column("uuid", sa.String(length=36), nullable=False),
        sa.Column("project_uuid", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("base", sa.String(length=255), nullable=False),
        sa.Column("base_is_ours", sa.Boolean(), nullable=False),
        sa.Column(
            "language",
            sa.Enum(
                "python",
                "r",
                "julia",
                "other",
                name="language",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column("gpu_support", sa.Boolean(), nullable=False),
        sa.Column("setup_script", sa.Text(), nullable=False),
        sa.Column("created", UTCDateTime(), nullable=False),
        sa.CheckConstraint("name <> ''", name=op.f("ck_environments_name")),
        sa.ForeignKeyConstraint(
            ["project_uuid"], ["projects.uuid"], name=op.f("fk_environments_project_uuid")
        ),
        sa.PrimaryKeyConstraint("uuid", name=op.f("pk_environments")),
    )
    op.create_index("ix_environments_project_uuid", "environments", ["project_uuid", "created"], unique=False)
    op.create_table(
        "jobs",
        sa.Column("uuid", sa.String(length=36), nullable=False),
        sa.Column("project_uuid", sa.String(length=36), nullable=False),
        sa.Column("pipeline_uuid", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("pipeline_name", sa.String(length=255), nullable=False),
        sa.Column("pipeline_path", sa.Text(), nullable=False),
        sa.Column(
            "status",
            sa.Enum(
                "DRAFT",
                "PENDING",
                "STARTED",
                "PAUSED",
                "SUCCESS",
                "FAILURE",
                "ABORTED",
                name="status",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column("schedule", sa.String(length=255), nullable=True),
        sa.Column("timezone", sa.String(length=64), nullable=False),
        sa.Column("next_scheduled_time", UTCDateTime(), nullable=True),
        sa.Column("definition", sa.JSON(), nullable=False),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("strategy", sa.JSON(), nullable=False),
        sa.Column("env_variables", sa.JSON(), nullable=False),
        sa.Column("max_retained_pipeline_runs", sa.Integer(), nullable=False),
        sa.Column("snapshot_path", sa.Text(), nullable=True),
        sa.Column("snapshot_size", sa.BigInteger(), nullable=False),
        sa.Column("total_runs", sa.Integer(), nullable=False),
        sa.Column("total_cron_runs", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("created", UTCDateTime(), nullable=False),
        sa.Column("started", UTCDateTime(), nullable=True),
        sa.Column("finished", UTCDateTime(), nullable=True),
        sa.CheckConstraint(
            "(finished IS NULL) = (status NOT IN ('SUCCESS', 'FAILURE', 'ABORTED'))",
            name=op.f("ck_jobs_ended"),
        ),
        sa.CheckConstraint("name <> ''", name=op.f("ck_jobs_name")),
        sa.CheckConstraint(
            "next_scheduled_time IS NULL OR status IN ('DRAFT', 'PENDING', 'STARTED')",
            name=op.f("ck_jobs_next_scheduled_time"),
        ),
        sa.CheckConstraint(
            "schedule IS NULL OR status NOT IN ('PENDING', 'SUCCESS')", name=op.f("ck_jobs_cron")
        ),
        sa.CheckConstraint("status <> 'PAUSED' OR schedule IS NOT NULL", name=op.f("ck_jobs_paused")),
        sa.CheckConstraint(
            "max_retained_pipeline_runs >= -1", name=op.f("ck_jobs_max_retained_pipeline_runs")
        ),
        sa.ForeignKeyConstraint(["project_uuid"], ["projects.uuid"], name=op.f("fk_jobs_project_uuid")),
        sa.PrimaryKeyConstraint("uuid", name=op.f("pk_jobs")),
    )
    op.create_index(
        "ix_jobs_due",
        "jobs",
        ["next_scheduled_time"],
        unique=False,
        postgresql_where=sa.text("next_scheduled_time IS NOT NULL"),
        sqlite_where=sa.text("next_scheduled_time IS NOT NULL"),
    )
    op.create_index("ix_jobs_pipeline_uuid", "jobs", ["pipeline_uuid"], unique=False)
    op.create_index("ix_jobs_project_uuid", "jobs", ["project_uuid", "created"], unique=False)
    op.create_table(
        "pipelines",
        sa.Column("project_uuid", sa.String(length=36), nullable=False),
        sa.Column("uuid", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("definition", sa.JSON(), nullable=False),
        sa.Column("env_variables", sa.JSON(), nullable=False),
        sa.Column("created", UTCDateTime(), nullable=False),
        sa.Column("saved", UTCDateTime(), nullable=False),
        sa.CheckConstraint("name <> ''", name=op.f("ck_pipelines_name")),
        sa.ForeignKeyConstraint(["project_uuid"], ["projects.uuid"], name=op.f("fk_pipelines_project_uuid")),
        sa.PrimaryKeyConstraint("project_uuid", "uuid", name=op.f("pk_pipelines")),
        sa.UniqueConstraint("project_uuid", "path", name=op.f("uq_pipelines_project_uuid_path")),
    )
    op.create_table(
        "cron_runs",
        sa.Column("uuid", sa.String(length=36), nullable=False),
        sa.Column("job_uuid", sa.String(length=36), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column(
            "status",
            sa.Enum(
                "PENDING",
                "STARTED",
                "SUCCESS",
                "FAILURE",
                "ABORTED",
                name="status",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column("scheduled", UTCDateTime(), nullable=True),
        sa.Column("started", UTCDateTime(), nullable=False),
        sa.Column("finished", UTCDateTime(), nullable=True),
        sa.Column("total_pipeline_runs", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.CheckConstraint("(finished IS NULL) = (status = 'STARTED')", name=op.f("ck_cron_runs_ended")),
        sa.CheckConstraint("status <> 'PENDING'", name=op.f("ck_cron_runs_never_pending")),
        sa.CheckConstraint("number > 0", name=op.f("ck_cron_runs_number")),
        sa.ForeignKeyConstraint(["job_uuid"], ["jobs.uuid"], name=op.f("fk_cron_runs_job_uuid")),
        sa.PrimaryKeyConstraint("uuid", name=op.f("pk_cron_runs")),
        sa.UniqueConstraint("job_uuid", "number", name=op.f("uq_cron_runs_job_uuid_number")),
        sa.UniqueConstraint("job_uuid", "scheduled", name=op.f("uq_cron_runs_job_uuid_scheduled")),
    )
    op.create_table(
        "environment_image_builds",
        sa.Column("environment_uuid", sa.String(length=36), nullable=False),
        sa.Column("uuid", sa.String(length=36), nullable=False),
        sa.Column("image_tag", sa.Integer(), nullable=False),
        sa.Column(
            "status",
            sa.Enum(
                "PENDING",
                "STARTED",
                "SUCCESS",
                "FAILURE",
                "ABORTED",
                name="status",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column("requested", UTCDateTime(), nullable=False),
        sa.Column("started", UTCDateTime(), nullable=True),
        sa.Column("finished", UTCDateTime(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("log_path", sa.Text(), nullable=True),
        sa.Column("image_path", sa.Text(), nullable=True),
        sa.Column("setup_script", sa.Text(), nullable=False),
        sa.Column("gpu_support", sa.Boolean(), nullable=False),
        sa.Column(
            "language",
            sa.Enum(
                "python",
                "r",
                "julia",
                "other",
                name="language",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column("base_is_ours", sa.Boolean(), nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=True),
        sa.Column("heartbeat", UTCDateTime(), nullable=True),
        sa.CheckConstraint(
            "(finished IS NULL) = (status IN ('PENDING', 'STARTED'))",
            name=op.f("ck_environment_image_builds_ended"),
        ),
        sa.CheckConstraint("image_tag > 0", name=op.f("ck_environment_image_builds_image_tag")),
        sa.ForeignKeyConstraint(
            ["environment_uuid"],
            ["environments.uuid"],
            name=op.f("fk_environment_image_builds_environment_uuid"),
        ),
        sa.PrimaryKeyConstraint("uuid", name=op.f("pk_environment_image_builds")),
        sa.UniqueConstraint(
            "environment_uuid",
            "image_tag",
            name=op.f("uq_environment_image_builds_environment_uuid_image_tag"),
        ),
    )
    op.create_index(
        "uq_environment_image_builds_unfinished",
        "environment_image_builds",
        ["environment_uuid"],
        unique=True,
        postgresql_where=sa.text("status IN ('PENDING', 'STARTED')"),
        sqlite_where=sa.text("status IN ('PENDING', 'STARTED')"),
    )
    op.create_table(
        "interactive_sessions",
        sa.Column("project_uuid", sa.String(length=36), nullable=False),
        sa.Column("pipeline_uuid", sa.String(length=36), nullable=False),
        sa.Column("uuid", sa.String(length=36), nullable=False),
        sa.Column(
            "status",
            sa.Enum(
                "LAUNCHING",
                "RUNNING",
                "STOPPING",
                name="status",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column("definition", sa.JSON(), nullable=False),
        sa.Column("requested", UTCDateTime(), nullable=False),
        sa.Column("started", UTCDateTime(), nullable=True),
        sa.Column("owner", sa.String(length=255), nullable=True),
        sa.Column("heartbeat", UTCDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["project_uuid", "pipeline_uuid"],
            ["pipelines.project_uuid", "pipelines.uuid"],
            name=op.f("fk_interactive_sessions_project_uuid_pipeline_uuid"),
        ),
        sa.PrimaryKeyConstraint("project_uuid", "pipeline_uuid", name=op.f("pk_interactive_sessions")),
        sa.UniqueConstraint("uuid", name=op.f("uq_interactive_sessions_uuid")),
    )
    op.create_index(op.f("ix_interactive_sessions_status"), "interactive_sessions", ["status"], unique=False)
    op.create_table(
        "pipeline_runs",
        sa.Column("uuid", sa.String(length=36), nullable=False),
        sa.Column("project_uuid", sa.String(length=36), nullable=False),
        sa.Column("pipeline_uuid", sa.String(length=36), nullable=False),
        sa.Column("pipeline_name", sa.String(length=255), nullable=False),
        sa.Column("job_uuid", sa.String(length=36), nullable=True),
        sa.Column("cron_run_uuid", sa.String(length=36), nullable=True),
        sa.Column("session_uuid", sa.String(length=36), nullable=True),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("number_in_run", sa.Integer(), nullable=True),
        sa.Column(
            "status",
            sa.Enum(
                "PENDING",
                "STARTED",
                "SUCCESS",
                "FAILURE",
                "ABORTED",
                name="status",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column("definition", sa.JSON(), nullable=False),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("env_variables", sa.JSON(), nullable=False),
        sa.Column("requested", UTCDateTime(), nullable=False),
        sa.Column("started", UTCDateTime(), nullable=True),
        sa.Column("finished", UTCDateTime(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("run_path", sa.Text(), nullable=True),
        sa.Column("owner", sa.String(length=255), nullable=True),
        sa.Column("heartbeat", UTCDateTime(), nullable=True),
        sa.CheckConstraint(
            "(finished IS NULL) = (status IN ('PENDING', 'STARTED'))", name=op.f("ck_pipeline_runs_ended")
        ),
        sa.CheckConstraint(
            "status <> 'STARTED' OR started IS NOT NULL", name=op.f("ck_pipeline_runs_started")
        ),
        sa.CheckConstraint(
            "(cron_run_uuid IS NULL) = (number_in_run IS NULL)", name=op.f("ck_pipeline_runs_number_in_run")
        ),
        sa.CheckConstraint(
            "cron_run_uuid IS NULL OR job_uuid IS NOT NULL", name=op.f("ck_pipeline_runs_cron_run")
        ),
        sa.CheckConstraint("number > 0", name=op.f("ck_pipeline_runs_number")),
        sa.ForeignKeyConstraint(
            ["cron_run_uuid"], ["cron_runs.uuid"], name=op.f("fk_pipeline_runs_cron_run_uuid")
        ),
        sa.ForeignKeyConstraint(["job_uuid"], ["jobs.uuid"], name=op.f("fk_pipeline_runs_job_uuid")),
        sa.ForeignKeyConstraint(
            ["project_uuid"], ["projects.uuid"], name=op.f("fk_pipeline_runs_project_uuid")
        ),
        sa.PrimaryKeyConstraint("uuid", name=op.f("pk_pipeline_runs")),
        sa.UniqueConstraint(
            "cron_run_uuid", "number_in_run", name=op.f("uq_pipeline_runs_cron_run_uuid_number_in_run")
        ),
        sa.UniqueConstraint("job_uuid", "number", name=op.f("uq_pipeline_runs_job_uuid_number")),
    )
    op.create_index(
        "ix_pipeline_runs_project_uuid", "pipeline_runs", ["project_uuid", "requested"], unique=False
    )
    op.create_index(
        "ix_pipeline_runs_unfinished",
        "pipeline_runs",
        ["status", "requested"],
        unique=False,
        postgresql_where=sa.text("status IN ('PENDING', 'STARTED')"),
        sqlite_where=sa.text("status IN ('PENDING', 'STARTED')"),
    )
    op.create_index(
        "uq_pipeline_runs_interactive",
        "pipeline_runs",
        ["project_uuid", "pipeline_uuid", "number"],
        unique=True,
        postgresql_where=sa.text("job_uuid IS NULL"),
        sqlite_where=sa.text("job_uuid IS NULL"),
    )
    op.create_table(
        "service_processes",
        sa.Column("session_uuid", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=True),
        sa.Column("ports", sa.JSON(), nullable=False),
        sa.Column("restarts", sa.Integer(), nullable=False),
        sa.Column("started", UTCDateTime(), nullable=True),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("log_path", sa.Text(), nullable=True),
        sa.CheckConstraint("restarts >= 0", name=op.f("ck_service_processes_restarts")),
        sa.ForeignKeyConstraint(
            ["session_uuid"],
            ["interactive_sessions.uuid"],
            name=op.f("fk_service_processes_session_uuid"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("session_uuid", "name", name=op.f("pk_service_processes")),
    )
    op.create_table(
        "pipeline_run_steps",
        sa.Column("run_uuid", sa.String(length=36), nullable=False),
        sa.Column("step_uuid", sa.String(length=36), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column(
            "status",
            sa.Enum(
                "PENDING",
                "STARTED",
                "SUCCESS",
                "FAILURE",
                "ABORTED",
                name="status",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column("started", UTCDateTime(), nullable=True),
        sa.Column("finished", UTCDateTime(), nullable=True),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(finished IS NULL) = (status IN ('PENDING', 'STARTED'))",
            name=op.f("ck_pipeline_run_steps_ended"),
        ),
        sa.ForeignKeyConstraint(
            ["run_uuid"],
            ["pipeline_runs.uuid"],
            name=op.f("fk_pipeline_run_steps_run_uuid"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("run_uuid", "step_uuid", name=op.f("pk_pipeline_run_steps")),
    )
    op.add_column("events", sa.Column("project_uuid", sa.Text(), nullable=True))
    op.add_column("events", sa.Column("project_name", sa.Text(), nullable=True))
    op.add_column("events", sa.Column("project_url", sa.Text(), nullable=True))
    op.add_column("events", sa.Column("project_changes", sa.JSON(), nullable=True))
    op.add_column("events", sa.Column("pipeline_uuid", sa.Text(), nullable=True))
    op.add_column("events", sa.Column("pipeline_name", sa.Text(), nullable=True))
    op.add_column("events", sa.Column("pipeline_url", sa.Text(), nullable=True))
    op.add_column("events", sa.Column("pipeline_changes", sa.JSON(), nullable=True))
    op.add_column("events", sa.Column("session_status", sa.String(length=64), nullable=True))
    op.add_column("events", sa.Column("session_services", sa.JSON(), nullable=True))
    op.add_column("events", sa.Column("restarted_service", sa.Text(), nullable=True))
    op.add_column("events", sa.Column("active_runs", sa.Boolean(), nullable=True))
    op.add_column("events", sa.Column("pipeline_run_uuid", sa.Text(), nullable=True))
    op.add_column("events", sa.Column("pipeline_run_status", sa.String(length=64), nullable=True))
    op.add_column("events", sa.Column("pipeline_run_number", sa.BigInteger(), nullable=True))
    op.add_column("events", sa.Column("pipeline_run_url", sa.Text(), nullable=True))
    op.add_column("events", sa.Column("pipeline_run_steps", sa.JSON(), nullable=True))
    op.add_column("events", sa.Column("pipeline_run_parameters", sa.JSON(), nullable=True))
    op.add_column("events", sa.Column("pipeline_run_failed_steps", sa.JSON(), nullable=True))
    op.add_column("events", sa.Column("job_uuid", sa.Text(), nullable=True))
    op.add_column("events", sa.Column("job_name", sa.Text(), nullable=True))
    op.add_column("events", sa.Column("job_status", sa.String(length=64), nullable=True))
    op.add_column("events", sa.Column("job_pipeline_name", sa.Text(), nullable=True))
    op.add_column("events", sa.Column("job_url", sa.Text(), nullable=True))
    op.add_column("events", sa.Column("job_changes", sa.JSON(), nullable=True))
    op.add_column("events", sa.Column("job_total_runs", sa.BigInteger(), nullable=True))
    op.add_column("events", sa.Column("job_schedule", sa.Text(), nullable=True))
    op.add_column("events", sa.Column("job_next_scheduled_time", UTCDateTime(), nullable=True))
    op.add_column("events", sa.Column("run_uuid", sa.Text(), nullable=True))
    op.add_column("events", sa.Column("run_number", sa.BigInteger(), nullable=True))
    op.add_column("events", sa.Column("run_status", sa.String(length=64), nullable=True))
    op.add_column("events", sa.Column("total_pipeline_runs", sa.BigInteger(), nullable=True))
    op.add_column("events", sa.Column("pipeline_run_number_in_run", sa.BigInteger(), nullable=True))
    op.add_column("events", sa.Column("environment_uuid", sa.Text(), nullable=True))
    op.add_column("events", sa.Column("environment_name", sa.Text(), nullable=True))
    op.add_column("events", sa.Column("environment_url", sa.Text(), nullable=True))
    op.add_column("events", sa.Column("image_tag", sa.BigInteger(), nullable=True))
    op.add_column("events", sa.Column("image_build_status", sa.String(length=64), nullable=True))
    op.add_column("events", sa.Column("image_build_requested_time", UTCDateTime(), nullable=True))
    op.add_column("events", sa.Column("image_build_started_time", UTCDateTime(), nullable=True))
    op.add_column("events", sa.Column("image_build_finished_time", UTCDateTime(), nullable=True))
    op.add_column("events", sa.Column("image_build_gpu_support", sa.Boolean(), nullable=True))
    op.add_column("events", sa.Column("image_build_language", sa.String(length=64), nullable=True))


def downgrade() -> None:
    op.drop_column("events", "image_build_language")
    op.drop_column("events", "image_build_gpu_support")
    op.drop_column("events", "image_build_finished_time")
    op.drop_column("events", "image_build_started_time")
    op.drop_column("events", "image_build_requested_time")
    op.drop_column("events", "image_build_status")
    op.drop_column("events", "image_tag")
    op.drop_column("events", "environment_url")
    op.drop_column("events", "environment_name")
    op.drop_column("events", "environment_uuid")
    op.drop_column("events", "pipeline_run_number_in_run")
    op.drop_column("events", "total_pipeline_runs")
    op.drop_column("events", "run_status")
    op.drop_column("events", "run_number")
    op.drop_column("events", "run_uuid")
    op.drop_column("events", "job_next_scheduled_time")
    op.drop_column("events", "job_schedule")
    op.drop_column("events", "job_total_runs")
    op.drop_column("events", "job_changes")
    op.drop_column("events", "job_url")
    op.drop_column("events", "job_pipeline_name")
    op.drop_column("events", "job_status")
    op.drop_column("events", "job_name")
    op.drop_column("events", "job_uuid")
    op.drop_column("events", "pipeline_run_failed_steps")
    op.drop_column("events", "pipeline_run_parameters")
    op.drop_column("events", "pipeline_run_steps")
    op.drop_column("events", "pipeline_run_url")
    op.drop_column("events", "pipeline_run_number")
    op.drop_column("events", "pipeline_run_status")
    op.drop_column("events", "pipeline_run_uuid")
    op.drop_column("events", "active_runs")
    op.drop_column("events", "restarted_service")
    op.drop_column("events", "session_services")
    op.drop_column("events", "session_status")
    op.drop_column("events", "pipeline_changes")
    op.drop_column("events", "pipeline_url")
    op.drop_column("events", "pipeline_name")
    op.drop_column("events", "pipeline_uuid")
    op.drop_column("events", "project_changes")
    op.drop_column("events", "project_url")
    op.drop_column("events", "project_name")
    op.drop_column("events", "project_uuid")
    op.drop_table("pipeline_run_steps")
    op.drop_table("service_processes")
    op.drop_index(
        "uq_pipeline_runs_interactive",
        table_name="pipeline_runs",
        postgresql_where=sa.text("job_uuid IS NULL"),
        sqlite_where=sa.text("job_uuid IS NULL"),
    )
    op.drop_index(
        "ix_pipeline_runs_unfinished",
        table_name="pipeline_runs",
        postgresql_where=sa.text("status IN ('PENDING', 'STARTED')"),
        sqlite_where=sa.text("status IN ('PENDING', 'STARTED')"),
    )
    op.drop_index("ix_pipeline_runs_project_uuid", table_name="pipeline_runs")
    op.drop_table("pipeline_runs")
    op.drop_index(op.f("ix_interactive_sessions_status"), table_name="interactive_sessions")
    op.drop_table("interactive_sessions")
    op.drop_index(
        "uq_environment_image_builds_unfinished",
        table_name="environment_image_builds",
        postgresql_where=sa.text("status IN ('PENDING', 'STARTED')"),
        sqlite_where=sa.text("status IN ('PENDING', 'STARTED')"),
    )
    op.drop_table("environment_image_builds")
    op.drop_table("cron_runs")
    op.drop_table("pipelines")
    op.drop_index("ix_jobs_project_uuid", table_name="jobs")
    op.drop_index("ix_jobs_pipeline_uuid", table_name="jobs")
    op.drop_index(
        "ix_jobs_due",
        table_name="jobs",
        postgresql_where=sa.text("next_scheduled_time IS NOT NULL"),
        sqlite_where=sa.text("next_scheduled_time IS NOT NULL"),
    )
    op.drop_table("jobs")
    op.drop_index("ix_environments_project_uuid", table_name="environments")
    op.drop_table("environments")
    op.drop_table("scheduler_leases")
    op.drop_index("ix_projects_created", table_name="projects")
    op.drop_table("projects")
    op.drop_table("orchest_settings")
    op.drop_index("ix_kept_answers_created", table_name="kept_answers")
    op.drop_table("kept_answers")
    op.drop_index(
        "ix_jupyter_image_builds_unfinished",
        table_name="jupyter_image_builds",
        postgresql_where=sa.text("status IN ('PENDING', 'STARTED')"),
        sqlite_where=sa.text("status IN ('PENDING', 'STARTED')"),
    )
    op.drop_table("jupyter_image_builds")
    remove_event_types(
        {
            "project:created": "A project. (created)",
            "project:updated": "A project. (updated)",
            "project:deleted": "A project. (deleted)",
            "project:pipeline:created": "A pipeline of a project. (created)",
            "project:pipeline:updated": "A pipeline of a project. (updated)",
            "project:pipeline:deleted": "A pipeline of a project. (deleted)",
            "project:pipeline:interactive-session:started": "An interactive session of a pipeline. (started)",
            "project:pipeline:interactive-session:succeeded": "An interactive session of a pipeline. (succeeded)",
            "project:pipeline:interactive-session:failed": "An interactive session of a pipeline. (failed)",
            "project:pipeline:interactive-session:stopped": "An interactive session of a pipeline. (stopped)",
            "project:pipeline:interactive-session:service-restarted": "An interactive session of a pipeline. (service-restarted)",
            "project:pipeline:interactive-session:pipeline-run:created": "A pipeline run in an interactive session. (created)",
            "project:pipeline:interactive-session:pipeline-run:started": "A pipeline run in an interactive session. (started)",
            "project:pipeline:interactive-session:pipeline-run:succeeded": "A pipeline run in an interactive session. (succeeded)",
            "project:pipeline:interactive-session:pipeline-run:failed": "A pipeline run in an interactive session. (failed)",
            "project:pipeline:interactive-session:pipeline-run:cancelled": "A pipeline run in an interactive session. (cancelled)",
            "project:one-off-job:created": "A job that runs once. (created)",
            "project:one-off-job:updated": "A job that runs once. (updated)",
            "project:one-off-job:started": "A job that runs once. (started)",
            "project:one-off-job:succeeded": "A job that runs once. (succeeded)",
            "project:one-off-job:failed": "A job that runs once. (failed)",
            "project:one-off-job:cancelled": "A job that runs once. (cancelled)",
            "project:one-off-job:deleted": "A job that runs once. (deleted)",
            "project:cron-job:created": "A job that runs on a schedule. (created)",
            "project:cron-job:updated": "A job that runs on a schedule. (updated)",
            "project:cron-job:started": "A job that runs on a schedule. (started)",
            "project:cron-job:failed": "A job that runs on a schedule. (failed)",
            "project:cron-job:cancelled": "A job that runs on a schedule. (cancelled)",
            "project:cron-job:deleted": "A job that runs on a schedule. (deleted)",
            "project:cron-job:paused": "A job that runs on a schedule. (paused)",
            "project:cron-job:unpaused": "A job that runs on a schedule. (unpaused)",
            "project:cron-job:run:started": "A run of a cron job: the batch of pipeline runs that one scheduled time starts. (started)",
            "project:cron-job:run:succeeded": "A run of a cron job: the batch of pipeline runs that one scheduled time starts. (succeeded)",
            "project:cron-job:run:failed": "A run of a cron job: the batch of pipeline runs that one scheduled time starts. (failed)",
            "project:one-off-job:pipeline-run:created": "A pipeline run of a job that runs once. (created)",
            "project:one-off-job:pipeline-run:started": "A pipeline run of a job that runs once. (started)",
            "project:one-off-job:pipeline-run:succeeded": "A pipeline run of a job that runs once. (succeeded)",
            "project:one-off-job:pipeline-run:failed": "A pipeline run of a job that runs once. (failed)",
            "project:one-off-job:pipeline-run:cancelled": "A pipeline run of a job that runs once. (cancelled)",
            "project:one-off-job:pipeline-run:deleted": "A pipeline run of a job that runs once. (deleted)",
            "project:cron-job:run:pipeline-run:created": "A pipeline run of a run of a cron job. (created)",
            "project:cron-job:run:pipeline-run:started": "A pipeline run of a run of a cron job. (started)",
            "project:cron-job:run:pipeline-run:succeeded": "A pipeline run of a run of a cron job. (succeeded)",
            "project:cron-job:run:pipeline-run:failed": "A pipeline run of a run of a cron job. (failed)",
            "project:cron-job:run:pipeline-run:cancelled": "A pipeline run of a run of a cron job. (cancelled)",
            "project:cron-job:run:pipeline-run:deleted": "A pipeline run of a run of a cron job. (deleted)",
            "project:environment:created": "An environment of a project. (created)",
            "project:environment:deleted": "An environment of a project. (deleted)",
            "project:environment:image-build:created": "A build of an environment. (created)",
            "project:environment:image-build:started": "A build of an environment. (started)",
            "project:environment:image-build:succeeded": "A build of an environment. (succeeded)",
            "project:environment:image-build:failed": "A build of an environment. (failed)",
            "project:environment:image-build:cancelled": "A build of an environment. (cancelled)",
            "jupyter:image-build:created": "A build of JupyterLab with the user's set-up script. (created)",
            "jupyter:image-build:started": "A build of JupyterLab with the user's set-up script. (started)",
            "jupyter:image-build:succeeded": "A build of JupyterLab with the user's set-up script. (succeeded)",
            "jupyter:image-build:failed": "A build of JupyterLab with the user's set-up script. (failed)",
            "jupyter:image-build:cancelled": "A build of JupyterLab with the user's set-up script. (cancelled)",
            "debug-ping": "A ping that shows whether the analytics backend can be reached.",
            "view:loaded": "A view of the web application was opened.",
            "alert:shown": "The web application told its user something.",
            "confirm:shown": "The web application asked its user something.",
            "heartbeat-trigger": "The platform runs; sent every 15 minutes by one process of the installation.",
            "project:one-off-job:duplicated": "A job that runs once was copied.",
            "project:cron-job:duplicated": "A job that runs on a schedule was copied.",
            "project:pipeline:saved": "A pipeline definition was saved.",
        }
    )
