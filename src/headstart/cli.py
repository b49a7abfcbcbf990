"""The command line: it parses, calls one library function, and prints what that returns."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from headstart._bars import Bars
from headstart.errors import HeadstartError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_WEIGHTS = """\
weights of the base: 'imagenet' (default; Keras' own download); 'registry' (an InceptionV3
trained on ImageNet, then fine-tuned by the nsfwjs project to sort photographs and drawings
by decency, 8-bit quantised: for networks that reach only package registries; taken from the
npm package nsfwjs 4.3.0 with 'npm pack' and checked by SHA-256); 'random' or 'random:SEED'
(untrained, for tests); or a FILE: Keras' published ..._notop.h5, a .weights.h5 or a .keras"""
_DATA = """\
a folder with a folder for each class; the same inside train/, validation/ (or val/), test/;
or a .csv or .parquet manifest with the columns path,label[,split]"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code: 0 done, 1 failed, 2 usage."""
    arguments = vars(_parser().parse_args(argv))
    run, debug = arguments.pop("run"), arguments.pop("debug")
    if arguments["json"] == "-":
        arguments["quiet"] = True  # whoever reads the answer from the pipe wants nothing else
    signal.signal(signal.SIGTERM, _terminated)
    try:
        return int(run(**arguments))
    except (HeadstartError, OSError, KeyboardInterrupt) as error:
        if debug:
            raise
        return _failed(error)


def _failed(error: BaseException) -> int:
    if isinstance(error, BrokenPipeError):  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    what = "stopped" if isinstance(error, KeyboardInterrupt) else " ".join(str(error).split())
    print(f"headstart: {what or type(error).__name__}", file=sys.stderr)
    return 1


def _terminated(*_: object) -> NoReturn:
    raise KeyboardInterrupt


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
    from headstart.status import staleness, status

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


def _compare(*, store: str, quiet: bool, json: str | None, **options: Any) -> int:
    from headstart.cache import Store
    from headstart.heads import compare

    with Bars(quiet=quiet) as bars:
        comparison = compare(Store.open(store), progress=bars, **options)
    _say([str(comparison)], quiet=quiet)
    _write_json(json, comparison.to_dict())
    return 0


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise argparse.ArgumentTypeError("expected names with commas between them")
    return names


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"expected a share from 0 to below 1; found {text}")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a number of 1 or more; found {text}")
    return value


def _bytes(text: str) -> int:
    """Parse ``800M``, ``4GB``, ``1.5 GiB`` or plain bytes."""
    from headstart._words import parse_size

    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _parser() -> argparse.ArgumentParser:
    """Return the parser; options not given are absent, so that no default lives here."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--quiet", action="store_true", help="print nothing but errors")
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    common.add_argument(
        "--json", metavar="FILE", help="also write the answer as JSON ('-': stdout)"
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
        found.set_defaults(run=run)
        return found

    _add_demo(verb("demo", _demo, "the whole story on pictures it draws itself"))
    _add_inspect(verb("inspect", _inspect, "before anything is computed: layers, pictures, cost"))
    _add_extract(verb("extract", _extract, "run the frozen base once and fill the store"))
    _add_status(verb("status", _status, "what is in a store, and what is missing or stale"))
    _add_verify(verb("verify", _verify, "read everything back and check it"))
    _add_pack(verb("pack", _pack, "one self-contained HDF5 file"))
    _add_compare(verb("compare", _compare, "heads on the same rows, in one table"))
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
    verb.add_argument("--size", type=_count, help="input height and width in pixels")
    verb.add_argument("--layer", dest="layers", type=_names, help="layers to cost, with commas")
    verb.add_argument("--all", dest="all_layers", action="store_true", help="list every layer")
    verb.add_argument("--max-pixels", type=_count, help="pictures with more would be left out")
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
        metavar="NAME[,NAME...]",
        help="layers to keep, all in one pass (default: mixed7)",
    )
    verb.add_argument("--pool", choices=("none", "avg", "max"), help="pooling before storing")
    verb.add_argument("--size", type=_count, help="input height and width in pixels (default: 150)")
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
    verb.add_argument("--dtype", choices=("float16", "float32"), help="of the stored numbers")
    verb.add_argument(
        "--validation",
        type=_share,
        metavar="SHARE",
        help="where DATA has no split: the share of pictures for validation, by a hash of "
        "their bytes (default: 0, no split)",
    )
    verb.add_argument("--max-pixels", type=_count, help="leave out pictures with more")
    verb.add_argument(
        "--on-error",
        choices=("ledger", "fail"),
        help="a picture that cannot be used is noted and left out (ledger), or ends the run (fail)",
    )
    verb.add_argument("--batch-size", type=_count, help="pictures in a batch; speed only")
    verb.add_argument("--workers", type=_count, help="decoding threads; speed only")


def _add_status(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("store", metavar="STORE")
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
        metavar="NAME[,NAME...]",
        help="heads with commas between them (default: logreg,svm,dense)",
    )
    verb.add_argument("--layer", help="a stored layer (default: the first)")
    verb.add_argument(
        "--pool", choices=("none", "avg", "max"), help="pooling over height and width"
    )
    verb.add_argument("--cv", type=_count, help="folds, where there is no validation split")
    verb.add_argument("--seed", type=int, help="of folds and heads")
    verb.add_argument(
        "--class-weight", choices=("balanced",), help="weigh classes by their inverse frequency"
    )
    verb.add_argument(
        "--plain", action="store_true", help="heads on the features, not their row space"
    )
    verb.add_argument("--max-memory", type=_bytes, help="memory for features, as 800M or 4GB")


if __name__ == "__main__":
    sys.exit(main())
