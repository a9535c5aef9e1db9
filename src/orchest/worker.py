"""What ``celery --app orchest.worker worker --queues runs --beat`` runs: pipeline runs on this machine.

The platform beside it is started with ``ORCHEST_EXECUTOR=celery`` and the same settings.
"""

from clarion.settings import read_settings as read_library_settings
from orchest.celery import make_celery
from orchest.server import site_of
from orchest.settings import broker, read_settings

configured = read_library_settings()

app = make_celery(broker(configured.broker_url), site_of(read_settings(), ""), configured.database_url)
