"""Where the sketches of `datasketches` come from: an optional library, found when a reducer is made.

Pure: no input or output.
"""

from __future__ import annotations

from importlib.util import find_spec

from vstore.errors import ConfigurationError

WAITING = 256  # values that an accumulator holds as they are before they go into its sketch


def require(reducer: str) -> None:
    """Refuses a reducer whose library is not there, where it is made and not in a worker.

    The library itself is imported at first use: it brings numpy, which takes 60 ms.

    Raises:
        ConfigurationError: `datasketches` is not installed.
    """
    if find_spec("datasketches") is None:
        raise ConfigurationError(
            f"{reducer} needs the library datasketches, which is not installed. Install it, also where the workers "
            f"run: pip install 'vstore[sketches]'"
        )
