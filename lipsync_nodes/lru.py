"""Keep the last result of a node as long as its inputs exist, without keeping them alive."""

import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class LastResult(Generic[T]):
    """A cache of one result, found by the identity of the inputs that it was made from.

    ComfyUI passes the very same objects as long as no node upstream ran again. When it releases
    one of them, the result is released too.
    """

    def __init__(self) -> None:
        self._inputs: tuple[Callable[[], Any], ...] = ()
        self._settings: tuple[Any, ...] = ()
        self._result: T | None = None

    def get(self, inputs: tuple[Any, ...], settings: tuple[Any, ...], make: Callable[[], T]) -> T:
        """Return the cached result, or make it and keep it.

        Args:
            inputs: Objects or None, compared by identity.
            settings: Compared by value.
            make: Called if the inputs or settings are others than last time.

        Returns:
            The result for these inputs and settings.
        """
        same = len(inputs) == len(self._inputs) and settings == self._settings
        same = same and all(ref() is value for ref, value in zip(self._inputs, inputs, strict=True))
        if self._result is None or not same:
            self._inputs = tuple(
                _none if value is None else weakref.ref(value, self._forget) for value in inputs
            )
            self._settings, self._result = settings, make()
        return self._result

    def _forget(self, _: Any) -> None:
        self._result = None


def _none() -> None:
    return None
