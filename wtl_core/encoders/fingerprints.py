"""Fingerprints of an encoder and of its compiled form. Imports neither torch nor a storage library."""

import hashlib

_COMPILED_VERSION = 1
"""Raise when a compiled network would give other vectors."""


def compiled_fingerprint(fingerprint: str) -> str:
    """The fingerprint of an encoder once it is compiled; it is known before that."""
    return hashlib.sha256(f"compiled {_COMPILED_VERSION} {fingerprint}".encode()).hexdigest()


def makes(encoder: str, vectors: str) -> bool:
    """Whether the encoder of one fingerprint makes the vectors of the other, compiled or not."""
    return vectors in (encoder, compiled_fingerprint(encoder))
