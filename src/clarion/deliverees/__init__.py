"""The kinds of subscriber: one small module each, holding its mapped class and its frozen deliveree.

Importing this package maps them all, so that rows of every kind can be read.
"""

from clarion.deliverees.webhook import Webhook, WebhookDeliveree

__all__ = ["Webhook", "WebhookDeliveree"]
