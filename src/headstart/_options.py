"""What the command line takes: every verb and every option."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_WEIGHTS = """\
weights of the base: 'imagenet' (default; Keras' own download); 'registry' (an InceptionV3
trained on ImageNet, then fine-tuned by the nsfwjs project to sort photographs and drawings
by decency, 8-bit quantised: for networks that reach only package registries; taken from the
npm package nsfwjs 4.3.0 with 'npm pack' and checked by SHA-256); 'random' or 'random:SEED'
(untrained, for tests); or a FILE: Keras' published ..._notop.h5, a .weights.h5 or a .keras"""
_NAMES = "NAME[,NAME...]"
_SIZE = "input height and width in pixels, 75 or more (default: 150)"
_POOLS = ("none", "avg", "max")
_MAX_PIXELS = "leave out pictures with more pixels (default: 64000000)"
_DATA = """\
a folder with a folder for each class; the same inside train/, validation/ (or val/), test/;
a .csv or .parquet manifest with the columns path,label[,split] and any others; WebDataset's
tar files, 'NAME-{00000..00012}.tar'; the URL of one of these (s3://, gs://, hf://, memory://,
zip://); or a name in TensorFlow Datasets, tfds:NAME[/CONFIG][@SPLIT] (headstart[tfds])"""


def parser(run: Mapping[str, Callable[..., int]]) -> argparse.ArgumentParser:
    """Return the parser of verbs, each with the function that runs it.

    Options not given are absent, so that no default lives here.
    """
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--quiet", action="store_true", help="print nothing but errors")
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    common.add_argument(
        "--json",
        metavar="FILE",
        type=_answer,
        help="also write the answer as JSON ('-': to stdout, and nothing else)",
    )
    found = argparse.ArgumentParser(
        prog="headstart", description="Run the frozen base once. Iterate on heads in seconds."
    )
    found.add_argument("--version", action=_Version)
    verbs = found.add_subparsers(title="verbs", metavar="VERB", required=True)
    for name, (text, add) in _verbs().items():
        verb = verbs.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            parents=[common],
            argument_default=argparse.SUPPRESS,
        )
        verb.set_defaults(run=run[name], verb=verb)
        add(verb)
    return found


def _verbs() -> dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]]:
    """Return what each verb does, and what adds its options."""
    return {
        "demo": ("the whole story on pictures it draws itself", _add_demo),
        "inspect": ("before anything is computed: layers, pictures, cost", _add_inspect),
        "extract": ("run the frozen base once and fill the store", _add_extract),
        "status": ("what is in a store or a model; what is missing or stale", _add_status),
        "verify": ("read everything back and check it", _add_verify),
        "pack": ("one self-contained HDF5 file", _add_pack),
        "compare": ("heads on the same rows, in one table", _add_compare),
        "train": ("the chosen head on all training rows, as a model", _add_train),
        "predict": ("labels and probabilities of pictures", _add_predict),
        "export": ("base and head joined, for other programs", _add_export),
        "sweep": ("which layer to cut at", _add_sweep),
        "bench": ("frozen versus fine-tuned versus from scratch", _add_bench),
        "report": ("the page people look at: one HTML file", _add_report),
    }


class _Version(argparse.Action):
    """Print the installed version, looked up only when asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str, **_: Any) -> None:
        text = "print the version and exit"
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help=text)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version

        sys.stdout.write(f"headstart {version('headstart')}\n")
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
    _add_page(verb)


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
    verb.add_argument(
        "--pool",
        choices=_POOLS,
        help="pooling over height and width to cost (default: none)",
    )
    verb.add_argument("--all", dest="all_layers", action="store_true", help="list every layer")
    verb.add_argument("--max-pixels", type=_count, help=_MAX_PIXELS)
    verb.add_argument(
        "--strict", action="store_true", help="exit 1 where a picture would be left out"
    )


def _add_extract(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("data", metavar="DATA", help=_DATA)
    verb.add_argument(
        "-o", dest="store", metavar="STORE", required=True, help="the store's folder, or its URL"
    )
    verb.add_argument(
        "--layer",
        dest="layers",
        type=_names,
        metavar=_NAMES,
        help="layers to keep, all in one pass (default: mixed7)",
    )
    verb.add_argument(
        "--pool",
        choices=_POOLS,
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
        "--decoding",
        choices=("full", "scaled"),
        help="scaled: decode large JPEGs at a half, a quarter or an eighth of their size, faster "
        "and slightly different (default: full); recorded in the store",
    )
    verb.add_argument(
        "--views",
        type=_views,
        metavar="K",
        help="also keep K augmented copies of each picture that is not for validation or test "
        "(default: 0)",
    )
    verb.add_argument(
        "--augment",
        metavar="NAME=NUMBER[,...]",
        help="how views differ (default: flip=0.5,crop=0.1,rotation=0.05,zoom=0.1,"
        "brightness=0.1,contrast=0.1,seed=0); recorded in the store",
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
        help="threads that decode and, usually, compute; speed only (default: as many as processor "
        "cores, 2 at least)",
    )
    _add_on(verb, "STORE")
    verb.add_argument(
        "--part",
        metavar="NUMBER/PARTS",
        help="compute one part of the pictures, such as 3/16, and publish nothing: for arrays of "
        "jobs on one store folder; extract without it then computes what is missing and publishes",
    )


def _add_on(verb: argparse.ArgumentParser, place: str, more: str = "") -> None:
    verb.add_argument(
        "--on",
        metavar="CLUSTER",
        help="compute in workers of Ray (headstart[ray]): 'ray' for workers on this machine, or "
        f"ray://HOST:10001 for a cluster that sees DATA and {place} under the same paths{more}",
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


def _add_rows(
    verb: argparse.ArgumentParser,
    *,
    folds: str,
    store: tuple[str, str] = ("STORE", "a store, or a packed file"),
) -> None:
    """Add which rows and features of a store heads are given, and how rows are split."""
    verb.add_argument("store", metavar=store[0], help=store[1])
    verb.add_argument("--layer", help="a stored layer (default: the first)")
    verb.add_argument(
        "--pool",
        choices=_POOLS,
        help="pooling over height and width (default: none)",
    )
    verb.add_argument("--cv", type=_folds, help=folds)
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
        "--max-memory",
        type=_bytes,
        metavar="SIZE",
        help="memory for features, as 800M or 4GB (default: half of the machine's)",
    )


def _add_page(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--report",
        metavar="FILE.html",
        help="also write a page of it, as the verb report does (needs headstart[report])",
    )


def _add_heads(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--heads",
        type=_names,
        metavar=_NAMES,
        help="heads with commas between them (default: logreg,svm,dense)",
    )


def _add_report(verb: argparse.ArgumentParser) -> None:
    _add_rows(
        verb,
        folds="folds, where there is no validation split (default: 5)",
        store=("STORE_OR_BENCH", "a store, a packed file, or the folder of a benchmark"),
    )
    verb.add_argument(
        "-o", dest="file", metavar="FILE.html", required=True, help="the page to write"
    )
    _add_heads(verb)
    verb.add_argument("--curve", action="store_true", help="also show what more pictures would buy")
    verb.add_argument("--sweep", action="store_true", help="also judge every layer of the store")
    verb.add_argument(
        "--tsne",
        action="store_true",
        help="also make a map that keeps neighbours together (t-SNE; takes about 10 s)",
    )
    verb.add_argument("--data", metavar="DATA", help="the pictures (default: where they were)")
    verb.add_argument(
        "--figures",
        metavar="DIR",
        help="also write the figures as SVG and PDF, and the tables as CSV and LaTeX",
    )


def _add_compare(verb: argparse.ArgumentParser) -> None:
    _add_rows(verb, folds="folds, where there is no validation split (default: 5)")
    _add_heads(verb)
    _add_page(verb)
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
        "--average-views",
        action="store_true",
        help="measure the mean over a picture's augmented views (extract --views)",
    )
    verb.add_argument(
        "--plain", action="store_true", help="heads on the features, not their row space"
    )


def _add_train(verb: argparse.ArgumentParser) -> None:
    _add_rows(verb, folds="folds that measure it, without a validation split (default: 5)")
    verb.add_argument("--head", required=True, help="name of a head, as for compare")
    verb.add_argument("-o", dest="file", metavar="MODEL", required=True, help="file to write")
    verb.add_argument(
        "--bundle",
        action="store_true",
        help="put the base's weights into the file, 87 MB (default: they are named by digest)",
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
    verb.add_argument(
        "--workers",
        type=_count,
        help="threads that decode and, usually, compute; speed only",
    )


def _add_export(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("model", metavar="MODEL", help="a file that train wrote")
    verb.add_argument(
        "-o",
        dest="file",
        metavar="FILE",
        required=True,
        help="what to write: a name that ends in .keras, .onnx (with headstart[onnx]), .tflite or "
        ".savedmodel (a folder)",
    )
    verb.add_argument(
        "--store",
        help="the store it was trained on, against whose rows the file is held before it is "
        "published (default: the one beside MODEL with such features)",
    )
    verb.add_argument("--data", metavar="DATA", help="its pictures (default: where they were)")
    verb.add_argument(
        "--quantize",
        choices=("none", "int8"),
        help="int8: a TFLite file that computes in 8 bits (default: none)",
    )
    verb.add_argument("--weights", help="the base's weights, as for predict")


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
    verb.add_argument(
        "--cv", type=_folds, help="folds, where there is no validation split (default: 5)"
    )
    verb.add_argument("--seed", type=_seed, help="of the folds (default: 0)")
    _add_page(verb)


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
    verb.add_argument(
        "--views",
        type=_views,
        metavar="K",
        help="train frozen heads a second time, on K augmented views of each picture as well",
    )
    verb.add_argument("--augment", metavar="NAME=NUMBER[,...]", help="as for extract")
    verb.add_argument("--seeds", type=_count, help="how many (default: 3)")
    verb.add_argument(
        "--fail-under", type=_bar, metavar="ACCURACY", help="exit 1 if nothing is this accurate"
    )
    verb.add_argument("--epochs", type=_count, help="for fine-tuning, at most (default: 5)")
    verb.add_argument(
        "--curve",
        action="store_true",
        help="also train on a sixteenth, an eighth, ... of the training rows: the frozen heads, "
        "above the first layer of --finetune, and from scratch",
    )
    verb.add_argument(
        "--curve-modes",
        dest="curve",
        type=_names,
        metavar=_NAMES,
        help="the same for these modes, as frozen,finetune:mixed8,scratch+augment",
    )
    verb.add_argument(
        "--page",
        metavar="FILE.md",
        help="also write the table, its notes and plots here (they are in DIR/bench.md always)",
    )
    verb.add_argument(
        "--train-bn",
        action="store_true",
        help="train batch normalisation too (default: it stays in inference mode)",
    )
    _add_on(verb, "DIR", "; a task for each mode, and for each seed where a network is trained")
    _add_page(verb)


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
_views = _number(int, lambda value: 0 <= value <= 255, "a whole number from 0 to 255")
_folds = _number(int, lambda value: value >= 2, "a whole number of 2 or more")
_seed = _number(int, lambda value: 0 <= value < 2**32, "a whole number from 0 to 4294967295")


def _answer(text: str) -> str:
    """Refuse an answer's place before anything is computed, not after."""
    if text != "-" and (Path(text).is_dir() or not Path(text).absolute().parent.is_dir()):
        raise argparse.ArgumentTypeError(f"expected a file in a folder that exists; found {text!r}")
    if text != "-" and Path(text).is_file() and not _replaceable(Path(text)):
        raise argparse.ArgumentTypeError(
            f"{text} is there already and is no JSON answer: name another file"
        )
    return text


def _replaceable(file: Path) -> bool:
    """Tell whether an answer may replace a file: one of a JSON object, or an empty one."""
    if not file.stat().st_size:
        return True
    try:
        return file.suffix == ".json" and isinstance(json.loads(file.read_bytes()), dict)
    except (OSError, ValueError, RecursionError):
        return False


def _bytes(text: str) -> int:
    """Parse ``800M``, ``4GB``, ``1.5 GiB`` or plain bytes."""
    from headstart._words import parse_size

    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
