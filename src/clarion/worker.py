"""What ``celery --app clarion.worker worker --queues deliveries --beat`` runs, set by CLARION_... variables.

Beat on one machine is enough. An application that has a Celery application of its own calls
`clarion.engines.celery.make_celery` instead.
"""

from clarion.engines.celery import make_celery
from clarion.errors import ConfigurationError
from clarion.lanes import Limits
from clarion.settings import import_app, read_settings

settings = read_settings()
if settings.broker_url is None:
    raise ConfigurationError(
        "CLARION_BROKER_URL: name the broker, such as amqp://localhost or redis://localhost"
    )
import_app(settings.app)

app = make_celery(
    settings.broker_url,
    settings.database_url,
    settings.egress,
    limits=Limits(in_flight=settings.relay_in_flight),
    grace=settings.relay_grace,
)
