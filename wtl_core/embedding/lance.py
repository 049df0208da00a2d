"""`lancedb`, imported without the checks of a web client that comes with it and that nothing here calls.

To prepare them takes 0.4 s of the 0.9 s that the import takes, in each run.
"""

import pydantic

_validate_call = pydantic.validate_call
pydantic.validate_call = lambda function: function  # type: ignore[assignment]
try:
    import lancedb
    from lancedb.index import IvfFlat
finally:
    pydantic.validate_call = _validate_call

__all__ = ["IvfFlat", "lancedb"]
