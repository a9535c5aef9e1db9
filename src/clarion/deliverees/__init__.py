"""The kinds of subscriber: one small module each, holding its mapped class and its frozen deliveree.

Importing this package maps them all, so that rows of every kind can be read.
"""

from clarion.deliverees.analytics import AnalyticsDeliveree, AnalyticsSubscriber
from clarion.deliverees.webhook import Webhook, WebhookDeliveree

__all__ = ["AnalyticsDeliveree", "AnalyticsSubscriber", "Webhook", "WebhookDeliveree"]
