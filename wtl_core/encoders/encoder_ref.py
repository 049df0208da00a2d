"""Which encoder a run works with: the small record that stages pass on instead of a network. Imports no torch."""

from dataclasses import dataclass

from wtl_core.encoders.fingerprints import makes
from wtl_core.workspace.commits import WeightsFile


@dataclass(frozen=True)
class EncoderRef:
    """The encoder of a run.

    Attributes:
        fingerprint: SHA-256 hex of the network that makes the vectors; of its compiled form if `is_compiled`.
        name: The encoder's name as the recipe has it.
        resolvable: A name that `resolve.resolve` turns into the very same network: a trained encoder's fingerprint,
            or `name` itself.
        dimensions: Width of a vector.
        file: What the weights or the factory were read from, where the name refers to a file.
        is_compiled: Whether the network is compiled before it embeds.
        near_copy_distance: Vectors closer than this belong to near-duplicates, as measured when the encoder was
            trained; None where it was not measured.
        side_px: Image side of the recipe, which only timm and torchvision networks are loaded with; None for theirs.
    """

    fingerprint: str
    name: str
    resolvable: str
    dimensions: int
    file: WeightsFile | None
    is_compiled: bool = False
    near_copy_distance: float | None = None
    side_px: int | None = None

    @property
    def is_kept(self) -> bool:
        """Whether the workspace keeps the encoder, under the fingerprint by which it is resolved."""
        return makes(self.resolvable, self.fingerprint)
