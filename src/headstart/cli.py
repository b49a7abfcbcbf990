"""The command line: it parses, calls one library function, and prints what that returns."""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart._bars import Bars
from headstart._imports import quick_imports
from headstart._interrupts import Interrupts
from headstart._options import parser
from headstart.errors import FewPicturesError, HeadstartError, InterruptedRunError, ModelError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Sequence

    from headstart.heads.model import Prediction
    from headstart.report.content import Report

_LESS_MEMORY = "extract needs less with --batch-size, compare with --max-memory"
_EXPECTED = (HeadstartError, OSError, MemoryError, KeyboardInterrupt)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code: 0 done, 1 failed, 2 usage.

    Without `argv` it is the program: an interrupt, which is failure, ends the process.
    """
    interrupts, debug, run = Interrupts(program=argv is None), False, None
    try:
        with interrupts:
            arguments = _parse(argv)
            run, debug = arguments.pop("run"), arguments.pop("debug")
            if arguments["json"] == "-":
                arguments["quiet"] = True  # whoever reads the answer from the pipe wants no more
            return int(run(**arguments))
    except BaseException as error:
        if debug or not (interrupts.came or isinstance(error, _EXPECTED)):
            raise
        if interrupts.came and not isinstance(error, InterruptedRunError):
            error = KeyboardInterrupt()  # an import, say, makes another error of it
        return interrupts.leave(_failed(error, folds=run in _WITH_FOLDS))


def _failed(error: BaseException, *, folds: bool) -> int:
    """Say what failed, and of a verb with an option for folds which number would do."""
    if isinstance(error, BrokenPipeError):  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    what = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, KeyboardInterrupt):
        what = "stopped"
    elif isinstance(error, MemoryError) and not isinstance(error, HeadstartError):
        what = f"not enough memory ({what}); {_LESS_MEMORY}"
    elif folds and isinstance(error, FewPicturesError) and error.folds > 1:
        what += f", or use --cv {error.folds}"
    print(f"headstart: {what}", file=sys.stderr)
    return 1


def _say(lines: Iterable[str], *, quiet: bool) -> None:
    if not quiet:
        for line in lines:
            print(line)


def _write_json(path: str | None, content: dict[str, Any]) -> None:
    if path:
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        if path == "-":
            sys.stdout.write(text)
        else:
            Path(path).write_text(text, encoding="utf-8")


def _pages(file: str | None) -> None:
    """Refuse a page that could not be written before anything is computed."""
    if file is not None:
        from headstart.report import check_target

        check_target(file)


def _write_page(file: str | None, comparison: Any, *, quiet: bool, **more: Any) -> None:
    """Write the page of a comparison, where one was asked for."""
    if file is not None:
        from headstart.report import write_report

        with Bars(quiet=quiet) as bars:
            write_report(comparison, file, progress=bars, **more)
        _say(_page_lines(file), quiet=quiet)


def _page_lines(file: str) -> list[str]:
    from headstart import _words

    return [f"report: {file} ({_words.size(Path(file).stat().st_size)}), opens in any browser"]


def _demo(
    *, folder: str, quiet: bool, json: str | None, report: str | None = None, **options: Any
) -> int:
    from headstart.demo import demo

    _pages(report)
    with Bars(quiet=quiet) as bars:
        say = (lambda _: None) if quiet else (lambda text: print(text, flush=True))
        comparison = demo(folder, say=say, progress=bars, **options)
    _write_page(report, comparison, quiet=quiet)
    _write_json(json, comparison.to_dict())
    return 0


def _inspect(*, quiet: bool, json: str | None, strict: bool = False, **options: Any) -> int:
    from headstart import _words
    from headstart.inspection import inspect

    with Bars(quiet=quiet) as bars:
        found = inspect(progress=bars, **options)
    _say(_words.inspected(found), quiet=quiet)
    _write_json(json, found.to_dict())
    return 1 if strict and found.left_out else 0


def _extract(
    *,
    data: str,
    store: str,
    quiet: bool,
    json: str | None,
    part: str | None = None,
    **options: Any,
) -> int:
    from headstart import _words
    from headstart.extract import Part, Settings, Speed, fill_part, fill_store

    speed = {key: options.pop(key) for key in ("batch_size", "workers", "on") if key in options}
    rest = {name: options.pop(name) for name in ("on_error",) if name in options}
    settings = Settings(**options)
    if part is not None:
        which = Part.parse(part)
        with Bars(quiet=quiet) as bars:
            done = fill_part(
                data, store, settings, which, speed=Speed(**speed), progress=bars, **rest
            )
        _say(_words.part(done, store), quiet=quiet)
        _write_json(json, done.to_dict())
        return 0
    with Bars(quiet=quiet) as bars:
        filled, summary = fill_store(
            data, store, settings, speed=Speed(**speed), progress=bars, **rest
        )
    _say([*_words.extracted(filled, summary), *_words.unread(summary)], quiet=quiet)
    _write_json(json, summary.to_dict())
    return 0


def _status(*, store: str, quiet: bool, json: str | None, data: str | None = None) -> int:
    from headstart import _words
    from headstart.status import model_status, staleness, status

    model = model_status(store)
    if model is not None:
        _say(_words.model(model, store), quiet=quiet)
        _write_json(json, model.card.to_dict())
        return 0
    found = status(store)
    _say(_words.held(found), quiet=quiet)
    content = found.to_dict()
    if data is not None:
        with Bars(quiet=quiet) as bars:
            difference = staleness(store, data, progress=bars)
        _say(_words.stale(difference), quiet=quiet)
        content["data"] = difference.to_dict()
    _write_json(json, content)
    return 0


def _verify(*, store: str, quiet: bool, json: str | None, **options: Any) -> int:
    from headstart import _words
    from headstart.repair import verify_and_repair

    with Bars(quiet=quiet) as bars:
        found = verify_and_repair(store, progress=bars, **options)
    _say(_words.verified(found), quiet=quiet)
    _write_json(json, found.to_dict())
    return 0 if found.sound else 1


def _pack(*, store: str, file: str, quiet: bool, json: str | None) -> int:
    from headstart import _words
    from headstart.cache import Store, pack

    opened = Store.open(store)
    with Bars(quiet=quiet) as bars:
        written = pack(opened, file, progress=bars)
    bytes_written = written.stat().st_size
    _say([f"{len(opened):,} rows in {written} ({_words.size(bytes_written)})"], quiet=quiet)
    _write_json(json, {"file": str(written), "rows": len(opened), "bytes": bytes_written})
    return 0


def _compare(
    *,
    store: str,
    quiet: bool,
    json: str | None,
    curve: bool = False,
    fail_under: float = 0.0,
    report: str | None = None,
    **options: Any,
) -> int:
    with quick_imports():
        from headstart.cache import Store
        from headstart.heads import compare

    _pages(report)
    opened = Store.open(store)
    with Bars(quiet=quiet) as bars:
        comparison = compare(opened, progress=bars, **options)
    _say([str(comparison)], quiet=quiet)
    content, found = comparison.to_dict(), None
    if curve:
        from headstart.heads.curve import learning_curve

        with Bars(quiet=quiet) as bars:
            found = learning_curve(opened, progress=bars, **options)
        _say(["", str(found)], quiet=quiet)
        content["curve"] = found.to_dict()
    _write_page(report, comparison, quiet=quiet, curve=found)
    _write_json(json, content)
    return _judged(comparison.heads[0].accuracy, fail_under)


def _judged(best: float, fail_under: float) -> int:
    """Return the exit code of the best accuracy under a bar the user set."""
    if best >= fail_under:
        return 0
    print(f"headstart: the best accuracy is {best:.3f}, below {fail_under:g}", file=sys.stderr)
    return 1


def _train(*, store: str, file: str, quiet: bool, json: str | None, **options: Any) -> int:
    with quick_imports():
        from headstart import _words
        from headstart.cache import Store
        from headstart.heads.model import check_target
        from headstart.heads.training import train

    target, page = check_target(file), _page(f"{file}.md")
    with Bars(quiet=quiet) as bars:
        model = train(Store.open(store), progress=bars, **options)
    written = model.save(target)
    page.write_text("\n".join(_words.model_card(model.card)) + "\n", encoding="utf-8")
    lines = [*_words.model(model, written), *_words.needs(model), f"  its card as a page: {page}"]
    _say(lines, quiet=quiet)
    _write_json(json, model.card.to_dict())
    return 0


def _page(path: str) -> Path:
    """Return where a model's page goes: over nothing but another such page."""
    from headstart._words import PAGE

    page, first = Path(path), b""
    if page.is_file():
        with page.open("rb") as file:
            first = file.read(len(PAGE) + 1)
    if os.path.lexists(page) and first != f"{PAGE}\n".encode():
        raise ModelError(f"{page} is there already and is no model's card: name another -o")
    return page


def _predict(
    *,
    model: str,
    images: list[str],
    quiet: bool,
    json: str | None,
    weights: str | None = None,
    style: str = "text",
    top: int = 1,
    workers: int | None = None,
) -> int:
    with quick_imports():
        from headstart.heads.model import Model
        from headstart.prediction import answer, find_pictures, lines

    if json == "-" and style != "text":
        raise HeadstartError(
            f"--json - and --format {style} both want standard output: give --json a FILE"
        )
    loaded = Model.load(model)
    loaded = loaded if weights is None else loaded.with_weights(weights)
    pictures = find_pictures(images)
    with Bars(quiet=quiet) as bars:
        found = loaded.predict(pictures, workers=workers, progress=bars)
    classes = loaded.card.classes
    _say(lines(found, classes, style=style, top=top), quiet=quiet and style == "text")
    _write_json(json, answer(found, classes, top=top))
    return _all_predicted(found)


def _all_predicted(found: Sequence[Prediction]) -> int:
    """Return the exit code of predictions: that of failure where a picture has none."""
    without = sum(not prediction.label for prediction in found)
    if without:
        print(f"headstart: {without:,} of {len(found):,} not predicted", file=sys.stderr)
    return 1 if without else 0


def _export(*, model: str, file: str, quiet: bool, json: str | None, **options: Any) -> int:
    from headstart import _words
    from headstart.heads.export import export

    with Bars(quiet=quiet) as bars:
        found = export(model, file, progress=bars, **options)
    _say(_words.exported(found), quiet=quiet)
    _write_json(json, found.to_dict())
    return 0


def _sweep(
    *, data: str, quiet: bool, json: str | None, report: str | None = None, **options: Any
) -> int:
    from headstart.sweep import sweep

    _pages(report)
    with Bars(quiet=quiet) as bars:
        found = sweep(data, progress=bars, **options)
    _say([str(found)], quiet=quiet)
    if report is not None:
        at = {"layer": found.best.layer, "pool": found.best.pool, "seed": options.get("seed", 0)}
        at |= {"cv": options["cv"]} if "cv" in options else {}
        _page_of(found.store, report, quiet=quiet, sweep=found, heads=("logreg", "svm"), **at)
    _write_json(json, found.to_dict())
    return 0


def _report(*, store: str, file: str, quiet: bool, json: str | None, **options: Any) -> int:
    found = _page_of(store, file, quiet=quiet, **options)
    _write_json(json, {"file": file} | found.to_dict())
    return 0


def _page_of(store: str, file: str, *, quiet: bool, **options: Any) -> Report:
    """Compare heads on a store or a benchmark's features, and write the page."""
    from headstart.report import report

    with Bars(quiet=quiet) as bars:
        found = report(store, file, progress=bars, **options)
    _say([*found.answer, *_page_lines(file)], quiet=quiet)
    return found


def _bench(
    *,
    data: str,
    folder: str,
    quiet: bool,
    json: str | None,
    fail_under: float = 0.0,
    report: str | None = None,
    **options: Any,
) -> int:
    from headstart import _words
    from headstart.bench import bench
    from headstart.extract import Settings

    _pages(report)
    names = [field.name for field in dataclasses.fields(Settings)]
    settings = Settings(**{name: options.pop(name) for name in names if name in options})
    with Bars(quiet=quiet) as bars:
        found = bench(data, folder, settings, progress=bars, **options)
    _say([str(found), "", _words.benched(folder, options.get("page"))], quiet=quiet)
    if report is not None:
        _page_of(folder, report, quiet=quiet)
    _write_json(json, found.to_dict())
    judged = _judged(found.summaries()[0].accuracy, fail_under)
    return 1 if found.failed else judged


def _parse(argv: Sequence[str] | None) -> dict[str, Any]:
    """Return the arguments; name the verb or option that a mistyped one was meant to be."""
    ours = parser(_RUN)
    given = sys.argv[1:] if argv is None else argv
    if not given:
        ours.print_help(sys.stderr)
        ours.exit(2)
    if not given[0].startswith("-") and given[0] not in _RUN:
        hint = _meant(given[0], _RUN)
        ours.error(f"no verb is called {given[0]!r}{hint}; there are {', '.join(_RUN)}")
    found, unknown = ours.parse_known_args(given)
    arguments = vars(found)
    verb: argparse.ArgumentParser = arguments.pop("verb")
    if unknown:
        options = re.findall(r"--[a-z-]+", verb.format_help())
        hint = _meant(unknown[0].split("=")[0], options)
        verb.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
    if arguments["run"] is _bench:  # its page shows what ran it
        arguments["command"] = shlex.join(["headstart", *given])
    return arguments


def _meant(word: str, known: Iterable[str]) -> str:
    likely = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {likely[0]}?" if likely else ""


_RUN: dict[str, Callable[..., int]] = {
    "demo": _demo,
    "inspect": _inspect,
    "extract": _extract,
    "status": _status,
    "verify": _verify,
    "pack": _pack,
    "compare": _compare,
    "train": _train,
    "predict": _predict,
    "export": _export,
    "sweep": _sweep,
    "bench": _bench,
    "report": _report,
}
#: The verbs that have --cv.
_WITH_FOLDS = (_compare, _train, _sweep, _report)


if __name__ == "__main__":
    sys.exit(main())
