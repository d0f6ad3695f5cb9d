"""What every peer speaks besides its purpose: ping, identify; and echo and perf for measuring."""

from air.protocols.echo import Echo
from air.protocols.identify import Identify, IdentifyConfig
from air.protocols.perf import Perf
from air.protocols.ping import Ping, PingConfig

__all__ = ["Echo", "Identify", "IdentifyConfig", "Perf", "Ping", "PingConfig"]
