"""The error types: one for each way to react, and for each exit code of the command line."""


class WtlError(Exception):
    """Anything this project raises on purpose. The message says what was expected, found, where, and what to do."""

    exit_code = 1


class ConfigError(WtlError):
    """Wrong use or configuration: change the command or the recipe; a retry cannot help."""

    exit_code = 2


class CrashLoopError(ConfigError):
    """Runs crash again and again: give them more memory; until one completes, no event starts another."""


class InputError(WtlError):
    """The input was read and is refused: change the data; a retry cannot help."""

    exit_code = 3


class QuarantineBudgetError(InputError):
    """More images are broken than the recipe allows: told apart, so that an alert can be."""


class CorruptArtifactError(WtlError):
    """A file of the workspace is not what was written there: delete it and run again."""


class TransientError(WtlError):
    """The outside world failed and may recover: a retry can help. The only type that tasks retry."""

    exit_code = 4


class LostWorkersError(WtlError):
    """The same work ends its workers again and again: give them more memory. Not retried, since that ends more."""

    exit_code = 4


class BusyError(WtlError):
    """A live process owns the workspace: wait for it. Not retried, since its run may take hours."""

    exit_code = 4


class TimeLimitError(WtlError, TimeoutError):
    """A run did not end within its limit: see what hangs, or raise the limit. A TimeoutError to the orchestrator."""

    exit_code = 4
