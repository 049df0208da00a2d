"""The row accounts of a refresh: how many rows were read, and what became of them.

`read == locations + ignored` and `locations == samples + duplicates + quarantined`, before embedding and after it.
"""

from pydantic import BaseModel, ConfigDict


class SourceAccounts(BaseModel):
    """The accounts of one source; those of all sources add up to the pool's."""

    model_config = ConfigDict(frozen=True, extra="allow")

    read: int
    """Rows that were read: images, and whatever else lay beside them."""
    locations: int
    """Rows that claim to be images."""
    quarantined: int
    """Locations that were refused with a reason."""
    ignored: int
    """Rows that claim to be no image."""


class PoolAccounts(BaseModel):
    """The accounts of a pool before it is embedded."""

    model_config = ConfigDict(frozen=True, extra="allow")

    read: int
    """Rows that were read: images, and whatever else lay beside them."""
    locations: int
    """Rows that claim to be images."""
    samples: int
    """Images that differ in their bytes: the pool."""
    duplicates: int
    """Locations of images whose bytes are in the pool already."""
    quarantined: int
    """Locations that were refused with a reason."""
    ignored: int
    """Rows that claim to be no image."""
    filtered: int
    """Samples that the recipe's filters exclude."""
    new_samples: int
    """Samples that were not in the pool of the last refresh."""


class Accounts(PoolAccounts):
    """The accounts of a whole refresh: what the encoder refused is quarantined and no sample."""

    skipped: int = 0
    """Samples that were skipped or are copies of these, without those held out; 0 in commits older than this count."""
    held_out: int = 0
    """Samples that the split holds out from training: those of validation and test, and those on no side."""
    vectors: int
    """Samples with a vector of the encoder."""
    ranked: int
    """Samples in the ranking."""
    picks: int
    """Samples up to the budget's operating point."""
