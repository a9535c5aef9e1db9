"""What ``celery --app orchest.worker worker --queues runs --beat`` runs: pipeline runs on this machine.

The platform beside it is started with ``ORCHEST_EXECUTOR=celery`` and the same settings, among them
``ORCHEST_BASE_URL``: a worker binds no address that would tell where events are to lead.
"""

from clarion.errors import ConfigurationError
from clarion.settings import read_settings as read_library_settings
from orchest.celery import make_celery
from orchest.server import site_of
from orchest.settings import broker, read_settings

configured, settings = read_library_settings(), read_settings()
if settings.base_url is None:
    raise ConfigurationError(
        "ORCHEST_BASE_URL: name the address users reach the platform at, such as http://127.0.0.1:8470"
    )

app = make_celery(
    broker(configured.broker_url), site_of(settings, settings.base_url), configured.database_url
)
