"""Conformance suites: what every implementation of an interface has to pass.

``await check_muxer(Yamux(), pair)``, and so on. The module of the same name has what belongs to one suite:
its ``CHECKS``, and the types of what it wants.
"""

from air.testing.check_muxer import check_muxer
from air.testing.check_security import check_security
from air.testing.check_transport import check_transport
from air.testing.check_wire import check_wire

__all__ = ["check_muxer", "check_security", "check_transport", "check_wire"]
