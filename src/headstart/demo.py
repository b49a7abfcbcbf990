"""The whole story on pictures drawn here: extract, extract again, compare."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from headstart import _words
from headstart.errors import WeightsError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from headstart.cache import Progress
    from headstart.heads import Comparison

HEADS = ("logreg", "svm", "dense")
_LOUD = """\
WARNING: no pretrained weights could be had, so the base is RANDOM. The figures below show
that everything runs; they say nothing about transfer learning."""


def demo(
    folder: str | os.PathLike[str],
    *,
    weights: str | None = None,
    say: Callable[[str], object] = print,
    progress: Progress | None = None,
) -> Comparison:
    """Draw pictures, extract their features, extract again, and compare heads.

    Parameters
    ----------
    folder
        Where pictures and store go; what is there already is used again.
    weights
        Of the base; the best that can be had by default: ``imagenet``, else ``registry``,
        else ``random``.
    say
        Called with each line of the story.
    progress
        Called with stage, done, total.

    Returns
    -------
    Comparison
        The table it ends with.
    """
    from headstart._pictures import draw_dataset
    from headstart.extract import Settings, fill_store
    from headstart.heads import compare

    place = Path(folder)
    pictures, path = place / "pictures", place / "pictures.features"
    say(f"1. Drawing pictures of our own into {pictures}")
    draw_dataset(pictures)
    weights = weights or weights_of(path) or best_weights(say)
    say(f"\n2. headstart extract {pictures} -o {path} --weights {weights}")
    settings = Settings(weights=weights)
    for once_more in (False, True):
        store, summary = fill_store(pictures, path, settings, progress=progress)
        say("\n".join(_words.extracted(store, summary)))
        if not once_more:
            say("\n3. The same command again: the features are there")
    say(f"\n4. headstart compare {path} --heads {','.join(HEADS)}")
    comparison = compare(store, HEADS, progress=progress)
    say(str(comparison))
    say(_next(path, weights))
    return comparison


def weights_of(path: Path) -> str | None:
    """Return the weights that an earlier demo filled this store with, if there is one."""
    from headstart.cache import Store

    if not (path / "features.h5").exists():
        return None
    found = Store.open(path).catalog.settings.get("weights")
    return str(found) if found else None


def best_weights(say: Callable[[str], object]) -> str:
    """Return the best weights that can be had here and now, saying what cannot."""
    from headstart.extract.weights import find_weights

    for name in ("imagenet", "registry"):
        try:
            find_weights(name)
        except WeightsError as error:
            say(f"   (no {name} weights: {str(error).split('. ')[0]})")
        else:
            return name
    say(_LOUD)
    return "random"


def _next(path: Path, weights: str) -> str:
    option = "" if weights == "imagenet" else f" --weights {weights}"
    return f"""
Now your own pictures, in a folder with a folder for each class:
  headstart inspect pets/
  headstart extract pets/ -o pets.features{option}
  headstart compare pets.features --heads logreg,svm,dense
What is in a store:
  headstart status {path}"""
