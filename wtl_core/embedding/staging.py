"""Vectors on their way into a table: one Arrow file for each commit, below `staging/<fingerprint>/`.

Many processes may write such files; `vectors.commit_staged` appends them to the table. Here too: the columns of both,
and the check that vectors are of unit length.
"""

import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from wtl_core.errors import CorruptArtifactError, InputError
from wtl_core.workspace.storage import Store

FOLDER = "staging"


def schema(dimensions: int) -> pa.Schema:
    """`sample_id` (never null, declared as the key: a second belt against duplicates) and `vector` (float16)."""
    key = {"lance-schema:unenforced-primary-key": "true"}
    return pa.schema(
        [
            pa.field("sample_id", pa.string(), nullable=False, metadata=key),
            pa.field("vector", pa.list_(pa.float16(), dimensions), nullable=False),
        ]
    )


def stage(store: Store, fingerprint: str, key: str, ids: Sequence[str], vectors: np.ndarray) -> None:
    """Write vectors for the next commit, to a file that appears complete or not at all.

    Args:
        store: The workspace.
        fingerprint: The encoder that made them; a commit refuses files of another one.
        key: Names the file; staging it again replaces it.
        ids: Sample ids, unique.
        vectors: (n, D) float16 of unit length.

    Raises:
        InputError: a vector is not finite or not of unit length; its sample is named.
    """
    check_unit_length(ids, vectors)
    table = as_table(ids, vectors).replace_schema_metadata({"fingerprint": fingerprint})
    with store.writer(_path(fingerprint, key)) as handle, pa.ipc.new_file(handle, table.schema) as writer:
        writer.write_table(table)


def staged_keys(store: Store, fingerprint: str) -> list[str]:
    """Keys of the files that are not committed yet, sorted; what a killed run left is among them."""
    names = store.names(f"{FOLDER}/{fingerprint}")
    return sorted(name.removesuffix(".arrow") for name in names if name.endswith(".arrow") and name[0] != ".")


def read(store: Store, fingerprint: str, key: str, dimensions: int) -> pa.Table | None:
    """A staged file's rows; None if there is no such file.

    Raises:
        CorruptArtifactError: it holds vectors of another encoder, or of another length.
    """
    try:
        table = pa.ipc.open_file(pa.BufferReader(store.read_bytes(_path(fingerprint, key)))).read_all()
    except FileNotFoundError:
        return None
    made_by = (table.schema.metadata or {}).get(b"fingerprint", b"").decode()
    if made_by != fingerprint or table.schema.field("vector").type.list_size != dimensions:
        raise CorruptArtifactError(
            f"{store.path(_path(fingerprint, key))}: expected vectors of encoder {fingerprint[:16]}..., found "
            "another's; delete the file and run again"
        )
    return table


def discard(store: Store, fingerprint: str, keys: Sequence[str]) -> None:
    """Delete staged files; those that are not there are passed by."""
    for key in keys:
        store.delete(_path(fingerprint, key))


def check_unit_length(ids: Sequence[str], vectors: np.ndarray) -> None:
    """Refuse vectors that are not finite or not of unit length (float16 rounds); the first bad sample is named."""
    import torch  # here: only who embeds gets here, and numpy takes ten times as long to widen float16

    norms = torch.from_numpy(vectors).float().norm(dim=1).numpy()
    bad = np.flatnonzero(~(np.abs(norms - 1) < 0.01))
    if len(bad):
        row = int(bad[0])
        raise InputError(
            f"sample {ids[row]}: expected a vector of length 1, found length {norms[row]}; {len(bad)} of {len(ids)} "
            "are so: the encoder does not suit these images, name another"
        )


def as_table(ids: Sequence[str], vectors: np.ndarray) -> pa.Table:
    """The rows of a staged file, and of a table, for (n, D) float16 vectors."""
    values = pa.array(np.ascontiguousarray(vectors, np.float16).reshape(-1), pa.float16())
    columns = [pa.array(ids, pa.string()), pa.FixedSizeListArray.from_arrays(values, vectors.shape[1])]
    return pa.table(columns, schema=schema(vectors.shape[1]))


def _path(fingerprint: str, key: str) -> str:
    assert re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z_\-]*", key), key
    return f"{FOLDER}/{fingerprint}/{key}.arrow"
