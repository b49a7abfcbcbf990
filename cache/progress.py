"""What long work calls with how far it is, for a bar or a test to show."""

from collections.abc import Callable

#: Called with the stage, how much of it is done, and how much there is.
Progress = Callable[[str, int, int], None]
