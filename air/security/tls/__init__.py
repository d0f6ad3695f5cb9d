"""TLS 1.3 with certificates that a peer signs for itself, its identity in an extension.

Source: libp2p tls.
"""

from air.security.tls.secure import Tls, TlsConfig, TlsConn

__all__ = ["Tls", "TlsConfig", "TlsConn"]
