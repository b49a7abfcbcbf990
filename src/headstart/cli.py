"""The command line: it parses, calls one library function, and prints what that returns."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import difflib
import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart._bars import Bars
from headstart._interrupts import Interrupts
from headstart.errors import HeadstartError, InterruptedRunError, ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

_WEIGHTS = """\
weights of the base: 'imagenet' (default; Keras' own download); 'registry' (an InceptionV3
trained on ImageNet, then fine-tuned by the nsfwjs project to sort photographs and drawings
by decency, 8-bit quantised: for networks that reach only package registries; taken from the
npm package nsfwjs 4.3.0 with 'npm pack' and checked by SHA-256); 'random' or 'random:SEED'
(untrained, for tests); or a FILE: Keras' published ..._notop.h5, a .weights.h5 or a .keras"""
_NAMES = "NAME[,NAME...]"
_SIZE = "input height and width in pixels, 75 or more (default: 150)"
_MAX_PIXELS = "leave out pictures with more pixels (default: 64000000)"
_LESS_MEMORY = "extract needs less with --batch-size, compare with --max-memory"
_EXPECTED = (HeadstartError, OSError, MemoryError, KeyboardInterrupt)
_DATA = """\
a folder with a folder for each class; the same inside train/, validation/ (or val/), test/;
or a .csv or .parquet manifest with the columns path,label[,split] and any others"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code: 0 done, 1 failed, 2 usage.

    Without `argv` it is the program: an interrupt, which is failure, ends the process.
    """
    interrupts, debug = Interrupts(program=argv is None), False
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
        return interrupts.leave(_failed(error))


def _failed(error: BaseException) -> int:
    if isinstance(error, BrokenPipeError):  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    what = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, KeyboardInterrupt):
        what = "stopped"
    elif isinstance(error, MemoryError) and not isinstance(error, HeadstartError):
        what = f"not enough memory ({what}); {_LESS_MEMORY}"
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


def _demo(*, folder: str, quiet: bool, json: str | None, **options: Any) -> int:
    from headstart.demo import demo

    with Bars(quiet=quiet) as bars:
        say = (lambda _: None) if quiet else (lambda text: print(text, flush=True))
        comparison = demo(folder, say=say, progress=bars, **options)
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


def _extract(*, data: str, store: str, quiet: bool, json: str | None, **options: Any) -> int:
    from headstart import _words
    from headstart.extract import Settings, Speed, fill_store

    speed = {name: options.pop(name) for name in ("batch_size", "workers") if name in options}
    rest = {name: options.pop(name) for name in ("on_error",) if name in options}
    settings = Settings(**options)
    with Bars(quiet=quiet) as bars:
        filled, summary = fill_store(
            data, store, settings, speed=Speed(**speed), progress=bars, **rest
        )
    _say(_words.extracted(filled, summary), quiet=quiet)
    _write_json(json, summary.to_dict())
    return 0


def _status(*, store: str, quiet: bool, json: str | None, data: str | None = None) -> int:
    from headstart import _words
    from headstart.status import model_status, staleness, status

    card = model_status(store)
    if card is not None:
        _say(_words.model(card, store), quiet=quiet)
        _write_json(json, card.to_dict())
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
    **options: Any,
) -> int:
    from headstart.cache import Store
    from headstart.heads import compare

    opened = Store.open(store)
    with Bars(quiet=quiet) as bars:
        comparison = compare(opened, progress=bars, **options)
    _say([str(comparison)], quiet=quiet)
    content = comparison.to_dict()
    if curve:
        from headstart.heads.curve import learning_curve

        with Bars(quiet=quiet) as bars:
            found = learning_curve(opened, progress=bars, **options)
        _say(["", str(found)], quiet=quiet)
        content["curve"] = found.to_dict()
    _write_json(json, content)
    return _judged(comparison.heads[0].accuracy, fail_under)


def _judged(best: float, fail_under: float) -> int:
    """Return the exit code of the best accuracy under a bar the user set."""
    if best >= fail_under:
        return 0
    print(f"headstart: the best accuracy is {best:.3f}, below {fail_under:g}", file=sys.stderr)
    return 1


def _train(*, store: str, file: str, quiet: bool, json: str | None, **options: Any) -> int:
    from headstart import _words
    from headstart.cache import Store
    from headstart.heads.model import check_target
    from headstart.heads.training import train

    target, page = check_target(file), _page(f"{file}.md")
    with Bars(quiet=quiet) as bars:
        model = train(Store.open(store), progress=bars, **options)
    written = model.save(target)
    page.write_text("\n".join(_words.model_card(model.card)) + "\n", encoding="utf-8")
    _say([*_words.model(model.card, written), f"  its card as a page: {page}"], quiet=quiet)
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
    from headstart.heads.model import Model
    from headstart.prediction import find_pictures, lines

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
    _write_json(json, {"predictions": [prediction.to_dict() for prediction in found]})
    return 0 if any(prediction.label for prediction in found) else 1


def _sweep(*, data: str, quiet: bool, json: str | None, **options: Any) -> int:
    from headstart.sweep import sweep

    with Bars(quiet=quiet) as bars:
        found = sweep(data, progress=bars, **options)
    _say([str(found)], quiet=quiet)
    _write_json(json, found.to_dict())
    return 0


def _bench(
    *,
    data: str,
    folder: str,
    quiet: bool,
    json: str | None,
    fail_under: float = 0.0,
    **options: Any,
) -> int:
    from headstart.bench import bench
    from headstart.extract import Settings

    names = [field.name for field in dataclasses.fields(Settings)]
    settings = Settings(**{name: options.pop(name) for name in names if name in options})
    with Bars(quiet=quiet) as bars:
        found = bench(data, folder, settings, progress=bars, **options)
    _say([str(found)], quiet=quiet)
    _write_json(json, found.to_dict())
    judged = _judged(found.summaries()[0].accuracy, fail_under)
    return 1 if found.failed else judged


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise argparse.ArgumentTypeError("expected names with commas between them")
    return names


def _number(kind: Callable[[str], float], holds: Callable[[float], bool], expected: str) -> Any:
    """Return a parser of numbers which says what was expected of one it refuses."""

    def parse(text: str) -> float:
        with contextlib.suppress(ValueError):
            value = kind(text)
            if holds(value):
                return value
        raise argparse.ArgumentTypeError(f"expected {expected}; found {text!r}")

    return parse


_share = _number(float, lambda value: 0 <= value < 1, "a share from 0 to below 1")
_count = _number(int, lambda value: value >= 1, "a whole number of 1 or more")
_bar = _number(float, lambda value: 0 < value <= 1, "an accuracy above 0 and up to 1")
_folds = _number(int, lambda value: value >= 2, "a whole number of 2 or more")
_seed = _number(int, lambda value: 0 <= value < 2**32, "a whole number from 0 to 4294967295")


def _answer(text: str) -> str:
    """Refuse an answer's place before anything is computed, not after."""
    if text != "-" and (Path(text).is_dir() or not Path(text).absolute().parent.is_dir()):
        raise argparse.ArgumentTypeError(f"expected a file in a folder that exists; found {text!r}")
    return text


def _bytes(text: str) -> int:
    """Parse ``800M``, ``4GB``, ``1.5 GiB`` or plain bytes."""
    from headstart._words import parse_size

    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _parse(argv: Sequence[str] | None) -> dict[str, Any]:
    """Return the arguments; name the option that a mistyped one was meant to be."""
    found, unknown = _parser().parse_known_args(argv)
    arguments = vars(found)
    verb: argparse.ArgumentParser = arguments.pop("verb")
    if unknown:
        options = re.findall(r"--[a-z-]+", verb.format_help())
        likely = difflib.get_close_matches(unknown[0].split("=")[0], options, n=1)
        hint = f"; did you mean {likely[0]}?" if likely else ""
        verb.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
    return arguments


def _parser() -> argparse.ArgumentParser:
    """Return the parser; options not given are absent, so that no default lives here."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--quiet", action="store_true", help="print nothing but errors")
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    common.add_argument(
        "--json",
        metavar="FILE",
        type=_answer,
        help="also write the answer as JSON ('-': to stdout, and nothing else)",
    )
    parser = argparse.ArgumentParser(
        prog="headstart", description="Run the frozen base once. Iterate on heads in seconds."
    )
    parser.add_argument("--version", action=_Version)
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)

    def verb(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        found = verbs.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            parents=[common],
            argument_default=argparse.SUPPRESS,
        )
        found.set_defaults(run=run, verb=found)
        return found

    _add_demo(verb("demo", _demo, "the whole story on pictures it draws itself"))
    _add_inspect(verb("inspect", _inspect, "before anything is computed: layers, pictures, cost"))
    _add_extract(verb("extract", _extract, "run the frozen base once and fill the store"))
    _add_status(verb("status", _status, "what is in a store or a model; what is missing or stale"))
    _add_verify(verb("verify", _verify, "read everything back and check it"))
    _add_pack(verb("pack", _pack, "one self-contained HDF5 file"))
    _add_compare(verb("compare", _compare, "heads on the same rows, in one table"))
    _add_train(verb("train", _train, "the chosen head on all training rows, as a model"))
    _add_predict(verb("predict", _predict, "labels and probabilities of pictures"))
    _add_sweep(verb("sweep", _sweep, "which layer to cut at"))
    _add_bench(verb("bench", _bench, "frozen versus fine-tuned versus from scratch"))
    return parser


class _Version(argparse.Action):
    """Print the installed version, looked up only when asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str, **_: Any) -> None:
        text = "print the version and exit"
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help=text)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version

        print(f"headstart {version('headstart')}")
        parser.exit()


def _add_demo(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "-o",
        dest="folder",
        metavar="DIR",
        default="headstart-demo",
        help="where pictures and store go (default: headstart-demo)",
    )
    verb.add_argument("--weights", help="weights of the base, as for extract")


def _add_inspect(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("data", metavar="DATA", nargs="?", help=_DATA)
    verb.add_argument("--size", type=_count, help=_SIZE)
    verb.add_argument(
        "--layer",
        dest="layers",
        type=_names,
        metavar=_NAMES,
        help="layers to cost (default: mixed7)",
    )
    verb.add_argument("--all", dest="all_layers", action="store_true", help="list every layer")
    verb.add_argument("--max-pixels", type=_count, help=_MAX_PIXELS)
    verb.add_argument(
        "--strict", action="store_true", help="exit 1 where a picture would be left out"
    )


def _add_extract(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("data", metavar="DATA", help=_DATA)
    verb.add_argument("-o", dest="store", metavar="STORE", required=True, help="the store's folder")
    verb.add_argument(
        "--layer",
        dest="layers",
        type=_names,
        metavar=_NAMES,
        help="layers to keep, all in one pass (default: mixed7)",
    )
    verb.add_argument(
        "--pool",
        choices=("none", "avg", "max"),
        help="pooling over height and width before storing (default: none)",
    )
    verb.add_argument("--size", type=_count, help=_SIZE)
    verb.add_argument("--weights", help=_WEIGHTS)
    verb.add_argument(
        "--engine",
        choices=("auto", "keras", "openvino"),
        help="what runs the base (default: auto, openvino where headstart[cpu] is installed and "
        "there is no GPU); recorded in the store",
    )
    verb.add_argument(
        "--precision",
        choices=("auto", "float32", "bfloat16"),
        help="arithmetic of the base (default: auto, bfloat16 where the hardware has it); "
        "recorded in the store",
    )
    verb.add_argument(
        "--dtype",
        choices=("float16", "float32"),
        help="of the stored numbers (default: float16)",
    )
    verb.add_argument(
        "--validation",
        type=_share,
        metavar="SHARE",
        help="where DATA has no split: the share of pictures for validation, by a hash of "
        "their bytes (default: 0, no split)",
    )
    verb.add_argument("--max-pixels", type=_count, help=_MAX_PIXELS)
    verb.add_argument(
        "--on-error",
        choices=("ledger", "fail"),
        help="a picture that cannot be used is noted and left out (ledger, the default), or ends "
        "the run (fail)",
    )
    verb.add_argument(
        "--batch-size", type=_count, help="pictures in a batch; speed only (default: 32)"
    )
    verb.add_argument(
        "--workers",
        type=_count,
        help="decoding threads; speed only (default: as many as processor cores, 2 at least)",
    )


def _add_status(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("store", metavar="STORE_OR_MODEL")
    verb.add_argument("--data", metavar="DATA", help="say what is missing or stale, and why")


def _add_verify(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("store", metavar="STORE")
    verb.add_argument("--repair", action="store_true", help="compute again what is damaged")
    verb.add_argument("--data", metavar="DATA", help="the pictures (default: where they were)")


def _add_pack(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("store", metavar="STORE")
    verb.add_argument("-o", dest="file", metavar="FILE.h5", required=True, help="file to write")


def _add_compare(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("store", metavar="STORE", help="a store, or a packed file")
    verb.add_argument(
        "--heads",
        type=_names,
        metavar=_NAMES,
        help="heads with commas between them (default: logreg,svm,dense)",
    )
    verb.add_argument("--layer", help="a stored layer (default: the first)")
    verb.add_argument(
        "--pool",
        choices=("none", "avg", "max"),
        help="pooling over height and width (default: none)",
    )
    verb.add_argument(
        "--cv", type=_folds, help="folds, where there is no validation split (default: 5)"
    )
    verb.add_argument(
        "--group-by",
        metavar="COLUMN",
        help="a column of the manifest: rows of equal value are never on both sides of a split, "
        "as the pictures of one patient or one camera (identical pictures never are)",
    )
    verb.add_argument("--seed", type=_seed, help="of folds and heads (default: 0)")
    verb.add_argument(
        "--class-weight",
        choices=("balanced",),
        help="weigh classes by their inverse frequency (default: all rows alike)",
    )
    verb.add_argument(
        "--fail-under", type=_bar, metavar="ACCURACY", help="exit 1 if nothing is this accurate"
    )
    verb.add_argument(
        "--curve",
        action="store_true",
        help="also train on a sixteenth, an eighth, ... of the training rows: what more pictures "
        "would buy",
    )
    verb.add_argument(
        "--plain", action="store_true", help="heads on the features, not their row space"
    )
    verb.add_argument(
        "--max-memory",
        type=_bytes,
        metavar="SIZE",
        help="memory for features, as 800M or 4GB (default: half of the machine's)",
    )


def _add_train(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("store", metavar="STORE", help="a store, or a packed file")
    verb.add_argument("--head", required=True, help="name of a head, as for compare")
    verb.add_argument("-o", dest="file", metavar="MODEL", required=True, help="file to write")
    verb.add_argument("--layer", help="a stored layer (default: the first)")
    verb.add_argument(
        "--pool",
        choices=("none", "avg", "max"),
        help="pooling over height and width (default: none)",
    )
    verb.add_argument(
        "--cv", type=_folds, help="folds that measure it, without a validation split (default: 5)"
    )
    verb.add_argument("--group-by", metavar="COLUMN", help="as for compare")
    verb.add_argument("--seed", type=_seed, help="of folds and head (default: 0)")
    verb.add_argument(
        "--class-weight",
        choices=("balanced",),
        help="weigh classes by their inverse frequency (default: all rows alike)",
    )
    verb.add_argument(
        "--max-memory",
        type=_bytes,
        metavar="SIZE",
        help="memory for features, as 800M or 4GB (default: half of the machine's)",
    )


def _add_predict(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("model", metavar="MODEL", help="a file that train wrote")
    verb.add_argument(
        "images",
        metavar="IMAGES",
        nargs="+",
        help="files, folders, patterns in quotes, or '-' for paths on standard input",
    )
    verb.add_argument(
        "--top-k", dest="top", type=_count, help="how many classes to name (default: 1)"
    )
    verb.add_argument(
        "--format",
        dest="style",
        choices=("text", "csv", "jsonl"),
        help="of the lines on standard output (default: text)",
    )
    verb.add_argument(
        "--weights",
        help="the base's weights, needed for a model whose weights came from a file (default: by "
        "the name in its card)",
    )
    verb.add_argument("--workers", type=_count, help="decoding threads; speed only")


def _add_sweep(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("data", metavar="DATA", help=_DATA)
    verb.add_argument(
        "-o",
        dest="store",
        metavar="STORE",
        help="where the features of all layers are kept (default: DATA's name and .sweep)",
    )
    verb.add_argument(
        "--layer",
        dest="layers",
        type=_names,
        metavar=_NAMES,
        help="layers to judge (default: mixed0 to mixed10)",
    )
    verb.add_argument("--size", type=_count, help=_SIZE)
    verb.add_argument("--weights", help="weights of the base, as for extract")
    verb.add_argument("--seed", type=_seed, help="of the folds (default: 0)")


def _add_bench(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("data", metavar="DATA", help=_DATA)
    verb.add_argument(
        "-o",
        dest="folder",
        metavar="DIR",
        required=True,
        help="where features and results go; a benchmark that was stopped goes on from there",
    )
    verb.add_argument(
        "--layer",
        dest="layers",
        type=_names,
        metavar="NAME",
        help="what frozen heads are trained on (default: mixed7)",
    )
    verb.add_argument("--size", type=_count, help=_SIZE)
    verb.add_argument("--weights", help="weights of the base, as for extract")
    verb.add_argument("--validation", type=_share, metavar="SHARE", help="as for extract")
    verb.add_argument(
        "--heads",
        type=_names,
        metavar=_NAMES,
        help="heads for the frozen base (default: logreg,svm,ridge,knn,dense)",
    )
    verb.add_argument(
        "--finetune",
        type=_names,
        metavar=_NAMES,
        help="layers above which everything is trained, or 'all' "
        "(default: mixed9,mixed8,mixed7,all)",
    )
    verb.add_argument(
        "--no-scratch", dest="scratch", action="store_false", help="no network from scratch"
    )
    verb.add_argument("--seeds", type=_count, help="how many (default: 3)")
    verb.add_argument(
        "--fail-under", type=_bar, metavar="ACCURACY", help="exit 1 if nothing is this accurate"
    )
    verb.add_argument("--epochs", type=_count, help="for fine-tuning, at most (default: 5)")
    verb.add_argument(
        "--train-bn",
        action="store_true",
        help="train batch normalisation too (default: it stays in inference mode)",
    )


if __name__ == "__main__":
    sys.exit(main())
