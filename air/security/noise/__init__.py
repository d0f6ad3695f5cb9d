"""Noise: how two peers prove who they are, and encrypt all that follows.

The handshake is a challenge and a response in both directions at once, in three messages (pattern XX):

challenge
    Message 1, dialer to listener: a fresh key. Nobody has used it before, so no old answer fits it.
response
    Message 2, listener to dialer: a fresh key, and encrypted its static key, its identity and its signature.
    The listener answers with the key agreement on the dialer's challenge, and poses its own. Its identity has
    signed its static key; only the owner of that could encrypt this message for this challenge.
verify
    Message 3, dialer to listener: its static key, its identity and its signature, encrypted. The dialer has
    checked tag, signature and peer id, and now gives the same proof for the listener's challenge; the
    listener checks it in turn.
success
    From here on data, encrypted. Both have computed the same keys from three key agreements and the hash of
    all that was said: who changed a single bit of any message has made them differ.

Any failure ends the connection without an answer: to the other side all failures look alike. Identities are
seen only by who takes part, and the dialer's only by a listener who has proven its own. Recordings stay
unreadable when an identity key is stolen later, because the fresh keys are forgotten.

Source: libp2p noise; Noise protocol framework, pattern XX.
"""

from air.security.noise.secure import Noise, NoiseConn
from air.security.noise.session import NoiseConfig, Stage

__all__ = ["Noise", "NoiseConfig", "NoiseConn", "Stage"]
