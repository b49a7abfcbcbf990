"""Heads: classifiers on features, and their comparison on the same rows."""

from headstart.heads.base import Head
from headstart.heads.comparison import Comparison, compare
from headstart.heads.dense import DenseHead
from headstart.heads.evaluation import HeadResult
from headstart.heads.logreg import LogisticHead
from headstart.heads.neighbours import NearestMeanHead, NeighboursHead
from headstart.heads.registry import HEAD_NAMES, make_head
from headstart.heads.ridge import RidgeHead
from headstart.heads.rowspace import RowSpace
from headstart.heads.svm import SVMHead

__all__ = [
    "HEAD_NAMES",
    "Comparison",
    "DenseHead",
    "Head",
    "HeadResult",
    "LogisticHead",
    "NearestMeanHead",
    "NeighboursHead",
    "RidgeHead",
    "RowSpace",
    "SVMHead",
    "compare",
    "make_head",
]
