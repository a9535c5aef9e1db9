"""A small catalogue the library's own tests record: a shop with orders and parcels."""

from enum import Enum
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Mapped, Session

from clarion.declarations import derived, fact, identity, measure
from clarion.events import Event
from clarion.upkeep import Never, Upkeep

KEPT = Upkeep(owner="tests", since="1.0", expires=Never("Tests always ask."), triggers=("tests",))


class Channel(Enum):
    WEB = "web"
    SHOP = "shop"
    OTHER = "other"


class ShopEvent(Event, kind="shop", layer="shop"):
    """A shop."""

    upkeep = KEPT

    verbs = {"opened": "{name} opened", "closed": "{name} closed"}

    shop_uuid: Mapped[str] = identity(doc="The shop.")
    shop_name: Mapped[str] = fact(doc="Its name.")

    @measure(verbs=("opened",), purpose="How large installations are.")
    def orders_count(self, session: Session) -> int:
        """Orders the shop has."""
        return session.scalar(text("SELECT count(*) FROM events")) or 0


class OrderEvent(ShopEvent, kind="shop:order", layer="order"):
    """An order of a shop."""

    verbs = {
        "placed": "Order {number} placed at {shop.name}",
        "updated": "Order {number} changed",
        "failed": "Order {number} failed",
    }

    order_uuid: Mapped[str] = identity(doc="The order.")
    order_number: Mapped[int] = fact(anonymous=True, doc="Its number.", purpose="How many orders there are.")
    order_channel: Mapped[Channel] = fact(
        anonymous=True, doc="Its channel.", purpose="Which channels matter."
    )
    order_note: Mapped[str | None] = fact(doc="What the customer wrote.")
    order_changes: Mapped[list[dict[str, Any]]] = fact(
        key="update.changes", verbs=("updated",), doc="What changed."
    )

    @derived
    def url(self) -> str:
        """The order's page."""
        return f"https://shop.example/{self.shop_uuid}/{self.order_uuid}"

    @derived(anonymous=True, verbs=("failed",), purpose="How large orders are that fail.")
    def items_count(self, session: Session) -> int:
        """How many items it has."""
        return session.scalar(text("SELECT count(*) FROM no_such_table")) or 0


class ParcelEvent(OrderEvent, kind="shop:order:parcel", layer="parcel"):
    """A parcel of an order."""

    verbs = {"sent": "Parcel sent for order {shop.order.number}", "failed": "Parcel of {shop.name} was lost"}

    parcel_uuid: Mapped[str] = identity(doc="The parcel.")


ABOUT_SHOP: dict[str, Any] = {"shop_uuid": "s1", "shop_name": "Corner shop"}
ABOUT_ORDER: dict[str, Any] = {
    **ABOUT_SHOP,
    "order_uuid": "o1",
    "order_number": 7,
    "order_channel": Channel.WEB,
}
ABOUT_PARCEL: dict[str, Any] = {**ABOUT_ORDER, "parcel_uuid": "p1"}
