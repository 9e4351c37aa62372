"""The bus: messages that may be lost. Correctness never depends on one arriving.

A slow subscriber loses messages on every implementation, so that it can neither stop a publisher nor hold memory
without bound. `memory` serves one process, `redis` any number of them.
"""

from sandyard.bus.contract import Bus, BusError, Message, Subscription

__all__ = ["Bus", "BusError", "Message", "Subscription"]
