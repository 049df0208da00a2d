"""Images of a workspace with their labels, as torch trains on them. Imports torch."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

from wtl_core.images.decode import decode_rgb
from wtl_core.recipe.selection import EMPTY


class ImageDataset(Dataset[tuple[Any, Any]]):
    """Pairs of an image, (3, H, W) uint8 in RGB before `transform`, and its target.

    Where no image of the workspace has two classes a target is the number of its class, -1 where it is not labelled.
    Else it is a (C,) float32 tensor of zeros and ones, all NaN where it is not labelled. So training, validation and
    test have the same targets. The images' files are kept in memory.

    Attributes:
        classes: The names of all classes of the workspace, sorted; `empty` is that of images that hold nothing of
            interest.
    """

    def __init__(
        self,
        files: Sequence[bytes],
        ids: Sequence[str],
        labels: Mapping[str, Sequence[str] | None],
        transform: Callable[[Any], Any] | None = None,
    ) -> None:
        named = {key: None if names is None else (list(names) or [EMPTY]) for key, names in labels.items()}
        self._files = files
        self._labels = [named.get(sample_id) for sample_id in ids]
        self._transform = transform
        self.classes = sorted({name for names in named.values() for name in names or ()})
        self._number = {name: number for number, name in enumerate(self.classes)}
        self._has_several = any(names is not None and len(names) > 1 for names in named.values())

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image = decode_rgb(self._files[index])
        return image if self._transform is None else self._transform(image), self._target(self._labels[index])

    def _target(self, names: list[str] | None) -> Any:
        if not self._has_several:
            return -1 if names is None else self._number[names[0]]
        if names is None:
            return torch.full((len(self.classes),), torch.nan)
        target = torch.zeros(len(self.classes))
        target[[self._number[name] for name in names]] = 1.0
        return target
