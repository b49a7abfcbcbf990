"""The comparison: same rows, same splits, nothing learnt from what is evaluated."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.svm import LinearSVC

from headstart.cache import publish_bytes, sealed
from headstart.errors import FewPicturesError, HeadError
from headstart.heads import LogisticHead, SVMHead, compare, forms, parallel
from headstart.heads.alike import feature_numbers
from headstart.heads.splits import labelled_rows, protocol
from headstart.heads.stream import StreamedLinear

if TYPE_CHECKING:
    from collections.abc import Callable

    from headstart.cache import Store

    MakeStore = Callable[..., Store]
    Draw = Callable[..., Any]

FAST = ["logreg", "svm"]


class Recorder(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Remembers the rows it was given; knows nothing."""

    fitted: list[tuple[Any, Any, Any]] = []  # noqa: RUF012
    asked: list[Any] = []  # noqa: RUF012

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:
        self.classes_ = np.unique(y)
        Recorder.fitted.append((X, y, groups))
        return self

    def predict(self, X: Any) -> Any:
        Recorder.asked.append(X)
        return np.full(len(X), self.classes_[0])


class Meeting(Recorder):
    """Waits in its fit for another one."""

    beside = True
    both = threading.Barrier(2, timeout=30)

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:
        self.both.wait()
        return super().fit(X, y, groups)


class Oracle(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Certain of what the first three features say."""

    def fit(self, X: Any, y: Any) -> Self:
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X: Any) -> Any:
        return np.eye(3)[X[:, :3].argmax(1)]

    def predict(self, X: Any) -> Any:
        return X[:, :3].argmax(1)


@pytest.fixture
def recorder() -> Recorder:
    Recorder.fitted, Recorder.asked = [], []
    return Recorder()


def test_json_holds_what_machines_are_promised(make_store: MakeStore, draw: Draw) -> None:
    """`to_dict` has the documented keys, in types that JSON knows."""
    store = make_store(*draw(90))
    result = json.loads(json.dumps(compare(store, FAST, cv=3).to_dict()))
    assert result["store"] == str(store.path)
    assert result["rows"] == 90
    assert result["classes"] == ["class 0", "class 1", "class 2"]
    assert {head["head"] for head in result["heads"]} == set(FAST)
    for head in result["heads"]:
        assert head["ci95"][0] < head["accuracy"] < head["ci95"][1]
        assert head["params"]["C"] > 0
        for key in ("balanced_accuracy", "log_loss", "fit_seconds", "predict_ms_per_image"):
            assert head[key] > 0


def test_table_is_sorted_and_shows_the_anchors(make_store: MakeStore, draw: Draw) -> None:
    """The best head comes first and is marked; the majority class and the cost are shown."""
    table = str(compare(make_store(*draw(90)), FAST, cv=3))
    lines = table.splitlines()
    assert max(map(len, lines[1:])) <= 100
    assert "calibration error" in table
    assert "The comparison took" in table
    assert "90 rows, 3 classes" in lines[0]
    accuracies = [float(line.split()[1]) for line in lines[3:5]]
    assert accuracies == sorted(accuracies, reverse=True)
    assert lines[3].endswith("best")
    assert "the most frequent class of the training part, would reach 0.333" in table
    assert "extraction cost 1.5 s, once, all runs together." in " ".join(table.split())
    assert "3 stratified folds" in table


def test_class_weights_are_given_by_name(make_store: MakeStore, draw: Draw) -> None:
    """A class that is not named weighs 1; the table says what was weighted."""
    store = make_store(*draw(90))
    heads = [LogisticHead(1.0), SVMHead(1.0)]
    named = compare(store, heads, cv=3, class_weight={"class 1": 40})
    numbered = compare(store, heads, cv=3, class_weight={0: 1, 1: 40.0, 2: 1})
    plain = compare(store, heads, cv=3)
    assert [head.log_loss for head in named.heads] == [head.log_loss for head in numbered.heads]
    assert [head.log_loss for head in named.heads] != [head.log_loss for head in plain.heads]
    assert "takes weights, class 1 weighs 40 (others 1)" in named.protocol
    assert "weigh" not in plain.protocol
    balanced = compare(store, heads, cv=3, class_weight="balanced")
    assert "classes weigh their inverse frequency" in balanced.protocol


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({"class 7": 2}, "'class 7', which is not a class; classes are class 0, class 1, class 2"),
        ({3: 2}, "names 3"),
        ({"class 1": 0}, "above 0; found 0"),
        ({"class 1": "much"}, "above 0; found 'much'"),
        ("even", "a dict of weights or 'balanced'; found 'even'"),
    ],
)
def test_class_weights_that_cannot_be_are_refused(
    weights: Any, words: str, make_store: MakeStore, draw: Draw
) -> None:
    """Before anything is trained, by name."""
    with pytest.raises(HeadError, match=words):
        compare(make_store(*draw(30)), FAST, class_weight=weights)


def test_validation_split_is_what_is_measured(
    make_store: MakeStore, draw: Draw, recorder: Recorder
) -> None:
    """With a validation split, heads see the training rows only, and never the test split."""
    features, label = draw(120)
    split = ["train"] * 60 + [""] * 20 + ["validation"] * 30 + ["test"] * 10
    compared = compare(make_store(features, label, split=split), [recorder])
    assert [len(X) for X, _, _ in recorder.fitted] == [80]
    assert [len(X) for X in recorder.asked] == [30]
    assert compared.rows == 110
    assert "validation split of 30 rows, 10 of the test split left out;" in str(compared)
    assert compared.shared_rows_left_out == 0


def test_identical_pictures_never_straddle_folds(
    make_store: MakeStore, draw: Draw, recorder: Recorder
) -> None:
    """A picture that is there three times is in one fold, and heads are told its group."""
    features, label = draw(60)
    features, label = np.tile(features, (3, 1, 1, 1)), np.tile(label, 3)
    compare(make_store(features, label), [recorder], cv=4)
    for X, _, groups in recorder.fitted:
        counts = np.unique(groups, return_counts=True)[1]
        assert (counts == 3).all()
        assert len(X) == len(groups)


def test_equal_features_of_other_bytes_never_straddle_folds(
    make_store: MakeStore, draw: Draw, recorder: Recorder
) -> None:
    """A copy with a byte more is another file and the same picture; the table counts such."""
    features, label = draw(60)
    features, label = np.concatenate([features, features[:20]]), np.tile(label, 2)[:80]
    picture = [b"%064d" % i for i in range(80)]
    store = make_store(features, label, picture=picture)
    for _ in range(2):  # the second time from what is kept
        compared = compare(store, [recorder], cv=4)
        assert compared.to_dict()["equal_features"] == 40
        assert "40 of other bytes but equal features taken for identical" in compared.protocol
    for X, _, groups in recorder.fitted:
        twice = np.unique(X, axis=0, return_counts=True)[1] == 2
        assert twice.sum() == (np.unique(groups, return_counts=True)[1] == 2).sum() > 0
        assert sum(map(len, recorder.asked)) == 160
    split = ["train"] * 60 + ["validation"] * 20
    given = compare(make_store(features, label, picture=picture, split=split, name="g"), ["ridge"])
    assert given.shared_rows_left_out == 20


@pytest.mark.parametrize("damage", ["cut", "other", "none kept"])
def test_digests_that_are_damaged_are_made_again(
    make_store: MakeStore, draw: Draw, damage: str
) -> None:
    features, label = draw(40)
    features[20] = features[0]
    store = make_store(features, label, picture=[b"%064d" % i for i in range(40)])
    rows = np.arange(40)
    first = feature_numbers(store, rows)
    assert store.derived is not None
    (file,) = store.derived.iterdir()
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    elif damage == "other":
        publish_bytes(file, sealed(bytes(32 + 40 * 16)))
    else:
        shutil.rmtree(store.derived)
        store.derived.write_bytes(b"")
    told: list[Any] = []
    again = feature_numbers(store, rows, lambda *step: told.append(step))
    assert np.array_equal(first, again)
    assert len(np.unique(again)) == 39
    assert told[-1][1:] == (40, 40)
    assert first[0] == first[20]


def test_pictures_of_the_validation_split_are_not_trained_on(
    make_store: MakeStore, draw: Draw, recorder: Recorder
) -> None:
    """Training rows whose picture is in the validation split too are left out, and counted."""
    features, label = draw(100)
    features[60:70], label[60:70] = features[:10], label[:10]
    split = ["train"] * 60 + ["validation"] * 40
    compared = compare(make_store(features, label, split=split), [recorder], cv=4)
    assert [len(X) for X, _, _ in recorder.fitted] == [50]
    assert [len(X) for X in recorder.asked] == [40]
    assert compared.to_dict()["shared_rows_left_out"] == 10
    assert compared.rows == 90
    assert compared.protocol == (
        "validation split of 40 rows, 10 training rows left out as identical pictures shared with "
        "it, cv ignored"
    )


def test_a_training_split_that_validation_knows_whole_is_refused(
    make_store: MakeStore, draw: Draw
) -> None:
    features, label = draw(30)
    features, label = np.concatenate([features, features]), np.concatenate([label, label])
    split = ["train"] * 30 + ["validation"] * 30
    with pytest.raises(HeadError, match="30 identical pictures"):
        compare(make_store(features, label, split=split), FAST)


@pytest.mark.parametrize("validated", [False, True])
def test_rows_left_out_are_counted(
    make_store: MakeStore, draw: Draw, recorder: Recorder, validated: bool
) -> None:
    """The protocol says how many rows are of the test split, and how many have no label."""
    features, label = draw(60)
    label[:3] = -1
    split = ["test"] * 1 + ["train"] * 4 + ["test"] * 5 + ["train"] * 40
    split += ["validation" if validated else "train"] * 10
    compared = compare(make_store(features, label, split=split), [recorder], cv=2)
    assert ", 6 of the test split and 2 without a label left out" in compared.protocol
    assert compared.rows == 60 - 6 - 2
    features, label = draw(60)
    compared = compare(make_store(features, label, name="whole.features"), [recorder], cv=2)
    assert "left out" not in compared.protocol


def test_a_head_that_cannot_be_trained_is_refused_before_others_are(
    make_store: MakeStore, draw: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is fitted where one head of several needs more memory than there is."""
    fitted: list[Any] = []
    monkeypatch.setattr(StreamedLinear, "_fit", lambda self, _: fitted.append(self))
    store = make_store(*draw(600))
    with pytest.raises(HeadError, match="covariance of 360 features"):
        compare(store, "logreg,ridge", cv=2, max_memory=1_000_000)
    assert fitted == []


def test_columns_of_the_manifest_group_rows(
    make_store: MakeStore, draw: Draw, recorder: Recorder
) -> None:
    """`group_by` may name a column; its groups are kept out of training if validation has them."""
    features, label = draw(60)
    patient = [f"patient {i // 6}" if i < 54 else "" for i in range(60)]
    split = ["train"] * 33 + ["validation"] * 9 + [""] * 18
    store = make_store(features, label, split=split, columns={"patient": patient})
    compared = compare(store, [recorder], group_by="patient")
    assert compared.shared_rows_left_out == 3
    assert [len(X) for X, _, _ in recorder.fitted] == [48]
    assert compared.protocol.endswith(
        "3 training rows left out as identical pictures and rows of equal 'patient' shared with it"
    )
    groups = recorder.fitted[0][2]
    assert len(np.unique(groups)) == 7 + 6  # whole patients, and six rows without one
    with pytest.raises(HeadError, match=r"group by 'doctor': .* brought patient"):
        compare(store, [recorder], group_by="doctor")


def test_heads_that_see_axes_are_given_features(
    make_store: MakeStore, draw: Draw, recorder: Recorder
) -> None:
    """The row space was found on held-out rows too: only what no rotation changes is given it."""
    store = make_store(*draw(60))
    compared = compare(store, ["ncm", recorder, GaussianNB()], cv=3)
    assert {head.head: head.form for head in compared.heads} == {
        "ncm": "row space",
        "Recorder": "plain",
        "GaussianNB": "plain",
    }
    assert all(X.shape[1] == 360 for X, _, _ in recorder.fitted)
    assert "Recorder, GaussianNB: the features themselves, 360 numbers a row" in compared.features
    Recorder.fitted = []
    recorder.rotation_invariant = True
    compare(store, [recorder], cv=3)
    assert all(X.shape[1] <= 60 for X, _, _ in recorder.fitted)


def test_features_that_do_not_fit_are_refused_by_name(make_store: MakeStore, draw: Draw) -> None:
    """A row space may fit where the features of a head that needs them do not."""
    store = make_store(*draw(60))
    assert compare(store, ["ncm"], cv=3, max_memory=200_000).heads[0].form == "row space"
    with pytest.raises(HeadError, match=r"'GaussianNB' is not known .* use --pool avg"):
        compare(store, [GaussianNB()], cv=3, max_memory=200_000)


def test_a_log_loss_of_zero_comes_first(make_store: MakeStore, draw: Draw) -> None:
    """Of two heads without an error the one that is certain leads, also at a loss of exactly 0."""
    features, label = draw(90)
    features[..., :3] = (np.eye(3)[label] * 30)[:, None, None, :]
    heads = ["ncm", Oracle(), LinearSVC()]
    compared = compare(make_store(features, label), heads, cv=3)
    assert [head.accuracy for head in compared.heads] == [1.0] * 3
    assert compared.heads[0].log_loss == 0.0
    assert compared.heads[-1].log_loss is None


def test_progress_names_the_head_at_work(make_store: MakeStore, draw: Draw) -> None:
    """Each head tells of its fits under its own name, from nothing to all of them."""
    told: list[tuple[str, int, int]] = []
    compare(make_store(*draw(60)), FAST, cv=3, progress=lambda *step: told.append(step))
    for name in FAST:
        steps = [(done, total) for stage, done, total in told if stage == name]
        assert steps[0][0] == 0
        assert len(steps) == 4
        assert steps[-1][0] == steps[-1][1] > 0


def test_heads_are_fitted_beside_each_other(
    make_store: MakeStore, draw: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one split, two heads take two cores; results come in their own order."""
    monkeypatch.setattr(parallel, "cores", lambda: 2)
    store = make_store(*draw(60), split=(["train"] * 6 + ["validation"] * 4) * 6)
    assert [head.head for head in compare(store, [Meeting(), Meeting()]).heads] == [
        "Meeting",
        "Meeting 2",
    ]


def test_prediction_costs_what_a_user_pays(
    make_store: MakeStore, draw: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a head works on coordinates, finding those of a new row is in its time."""
    monkeypatch.setattr(forms, "seconds_per_row", lambda n, d: n * d)
    store = make_store(*draw(60))
    compared = compare(store, ["ncm", GaussianNB()], cv=3)
    cost = {head.head: head.predict_ms_per_image for head in compared.heads}
    assert cost["ncm"] >= 1e3 * 60 * 360 > cost["GaussianNB"]
    assert "coordinates included" in str(compared)
    assert "coordinates included" not in str(compare(store, ["ncm"], cv=3, plain=True))


def test_groups_of_the_user_are_kept_together_too(
    make_store: MakeStore, draw: Draw, recorder: Recorder
) -> None:
    """`group_by` joins rows on top of identical pictures."""
    features, label = draw(60)
    patient = np.arange(60) // 6
    compare(make_store(features, label), [recorder], cv=4, group_by=patient)
    for _, _, groups in recorder.fitted:
        assert (np.unique(groups, return_counts=True)[1] == 6).all()
    with pytest.raises(HeadError, match="one value per row"):
        compare(make_store(features, label), [recorder], group_by=patient[:5])


@pytest.mark.parametrize(
    "missing", [np.array([""] * 60), np.full(60, np.nan), np.array([None, np.nan, ""] * 20, object)]
)
def test_missing_groups_group_nothing(make_store: MakeStore, draw: Draw, missing: Any) -> None:
    """Empty text, NaN and None are no group: no training row is left out for them."""
    store = make_store(*draw(60), split=(["train"] * 6 + ["validation"] * 4) * 6)
    found = compare(store, ["ncm"], group_by=missing)
    assert found.shared_rows_left_out == 0
    assert found.rows == 60


def test_a_path_for_a_store_and_one_name_for_many(make_store: MakeStore, draw: Draw) -> None:
    """What is plainly meant is taken so."""
    store = make_store(*draw(60))
    found = compare(str(store.path), "ncm", cv=3)
    assert [head.head for head in found.heads] == ["ncm"]


def test_table_shows_where_folds_disagree(make_store: MakeStore, draw: Draw) -> None:
    """Hyperparameters are shown from the least to the most that was chosen in a fold."""
    found = compare(make_store(*draw(60)), ["logreg"], cv=3)
    head = replace(found.heads[0], params_by_fold=[{"C": 10.0}, {"C": 0.1}, {"C": 1000.0}])
    assert "in 3 folds from least to most: logreg C=0.1 to 1000." in str(
        replace(found, heads=(head,))
    )


def test_unlabelled_rows_are_left_out(
    make_store: MakeStore, draw: Draw, recorder: Recorder
) -> None:
    """Rows with label -1 are in no fold."""
    features, label = draw(60)
    label[:12] = -1
    compared = compare(make_store(features, label), [recorder], cv=3)
    assert compared.rows == 48
    assert sum(len(X) for X in recorder.asked) == 48


def test_augmented_views_are_never_measured(
    make_store: MakeStore, draw: Draw, recorder: Recorder
) -> None:
    """Views above 0 train with their picture, and are not evaluated."""
    features, label = draw(120)
    picture = [b"%064d" % i for i in range(60)] * 2
    label[60:] = label[:60]
    store = make_store(features, label, picture=picture, view=[0] * 60 + [1] * 60)
    compare(store, [recorder], cv=3)
    assert sum(len(X) for X in recorder.asked) == 60
    assert sum(len(X) for X, _, _ in recorder.fitted) == 240


def test_folds_are_the_same_with_views(make_store: MakeStore, draw: Draw) -> None:
    """What is measured does not depend on how many views there are; they follow their picture."""
    features, label = draw(60)
    picture = [b"%064d" % i for i in range(60)]
    plain = make_store(features, label, picture=picture, name="plain")
    with_views = make_store(
        np.repeat(features, 3, axis=0),
        np.repeat(label, 3),
        picture=[one for one in picture for _ in range(3)],
        view=[0, 1, 2] * 60,
        name="views",
    )
    folds = []
    for store in (plain, with_views):
        rows = labelled_rows(store, None)
        splits = protocol(store, rows, cv=4, seed=1).splits
        folds.append([rows.pictures[test].tolist() for _, test in splits])
        for train, test in splits:
            assert not set(rows.pictures[train]) & set(rows.pictures[test])
            assert len(train) == (60 - len(test)) * (1 + int(store.views().max()))
    assert folds[0] == folds[1]
    without = labelled_rows(with_views, None, views=False)
    assert without.first_view.all()
    assert len(without.numbers) == 60


def test_probabilities_are_averaged_over_views(make_store: MakeStore, draw: Draw) -> None:
    """Views that tell more than their picture help only where they are averaged."""
    clear, label = draw(90, signal=1.0)
    dark = np.zeros_like(clear)
    dark[:, 0, 0, 0] = np.arange(90) / 1000  # equal ones would be taken for one picture
    picture = [b"%064d" % i for i in range(90)]
    store = make_store(
        np.stack([dark, clear], axis=1).reshape(180, *clear.shape[1:]),
        np.repeat(label, 2),
        picture=[one for one in picture for _ in range(2)],
        view=[0, 1] * 90,
    )
    heads = ["logreg", LinearSVC()]
    alone, averaged = (compare(store, heads, cv=3, average_views=on) for on in (False, True))
    found = [{h.head: h.accuracy for h in result.heads} for result in (alone, averaged)]
    assert found[0]["logreg"] < 0.5
    assert found[1]["logreg"] > 0.9
    assert found[0]["LinearSVC"] == found[1]["LinearSVC"]
    assert averaged.evaluated == 90
    assert "averaged over 2 views" in averaged.protocol
    assert "90 augmented views trained on beside" in averaged.protocol
    plain = make_store(clear, label, name="plain")
    with pytest.raises(HeadError, match="no augmented views of the rows that are measured"):
        compare(plain, ["ridge"], average_views=True)


def test_labels_of_held_out_rows_change_nothing(make_store: MakeStore, draw: Draw) -> None:
    """What is chosen does not depend on the labels of the validation split."""
    features, label = draw(120)
    split = ["train"] * 80 + ["validation"] * 40
    other = label.copy()
    other[80:] = np.random.default_rng(1).permutation(other[80:])
    a = compare(make_store(features, label, split=split, name="a"), FAST)
    b = compare(make_store(features, other, split=split, name="b"), FAST)
    chosen = [{h.head: h.params for h in result.heads} for result in (a, b)]
    assert chosen[0] == chosen[1]


def test_classifiers_of_others_are_taken_as_they_are(make_store: MakeStore, draw: Draw) -> None:
    """scikit-learn's own classifiers can be compared, also those without probabilities."""
    heads = ["logreg", LogisticRegression(C=3.0, max_iter=500), LinearSVC()]
    compared = compare(make_store(*draw(90)), heads, cv=3)
    results = {head.head: head for head in compared.heads}
    assert set(results) == {"logreg", "LogisticRegression", "LinearSVC"}
    assert results["LinearSVC"].log_loss is None
    assert "LinearSVC" in str(compared)


def test_plain_gives_the_same_linear_classifier(make_store: MakeStore, draw: Draw) -> None:
    """On features and on row-space coordinates, linear heads predict alike."""
    store = make_store(*draw(90))
    heads = [LogisticHead(tol=1e-7), SVMHead()]
    a, b = (compare(store, heads, cv=3, plain=plain) for plain in (False, True))
    assert {h.head: h.accuracy for h in a.heads} == {h.head: h.accuracy for h in b.heads}


def test_a_second_comparison_reads_the_row_space(make_store: MakeStore, draw: Draw) -> None:
    """The row space is kept under `derived/`, and gives the same numbers."""
    store = make_store(*draw(90))
    first, second = compare(store, ["logreg"], cv=3), compare(store, ["logreg"], cv=3)
    assert "computed in" in first.features
    assert "kept from an earlier run" in second.features
    assert first.heads[0].log_loss == second.heads[0].log_loss


def test_names_may_be_one_string(make_store: MakeStore, draw: Draw) -> None:
    """With commas between them, as the command line takes them."""
    found = compare(make_store(*draw(90)), "ncm, ridge", cv=3)
    assert {head.head for head in found.heads} == {"ncm", "ridge"}


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        (["logref"], r"no head is called 'logref' \(did you mean logreg\?\)"),
        ([], "at least one"),
        (",", "at least one"),
    ],
)
def test_unknown_heads_are_refused(
    make_store: MakeStore, draw: Draw, heads: str | list[str], message: str
) -> None:
    """The message names the nearest heads, and all there are."""
    with pytest.raises(HeadError, match=message):
        compare(make_store(*draw(30)), heads)


def test_too_few_rows_are_refused(make_store: MakeStore, draw: Draw) -> None:
    """A class with fewer pictures than folds is named, with the remedy."""
    features, label = draw(60)
    label[label == 2] = 0
    label[:3] = 2
    with pytest.raises(FewPicturesError, match="class 2 has 3 different pictures") as raised:
        compare(make_store(features, label), FAST)
    assert raised.value.folds == 3


def test_one_class_is_refused(make_store: MakeStore, draw: Draw) -> None:
    features, _ = draw(20)
    with pytest.raises(HeadError, match="one class only"):
        compare(make_store(features, [0] * 20), FAST)


def test_tensorflow_stays_out(make_store: MakeStore, draw: Draw) -> None:
    """Comparing linear heads imports no TensorFlow and no Keras."""
    store = make_store(*draw(60))
    code = (
        "import sys; from headstart.cache import Store; from headstart.heads import compare;"
        f"compare(Store.open({str(store.path)!r}), ['logreg', 'svm'], cv=2);"
        "print(sorted({'tensorflow', 'keras'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
