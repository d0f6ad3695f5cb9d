"""Kademlia: who holds what is found by asking peers ever closer to it.

A core each for the keyspace (``key``), the table of peers (``table``), one search (``lookup``, on several
``paths``), what is stored (``records``) and what a question gets for an answer (``responder``); ``kademlia``
is the service that turns them.
"""

from air.dht.config import KadConfig
from air.dht.kademlia import Kademlia, Mode
from air.dht.message import Contact
from air.dht.values import Anything, PublicKeys, Validator

__all__ = ["Anything", "Contact", "KadConfig", "Kademlia", "Mode", "PublicKeys", "Validator"]
