# SPDX-License-Identifier: Apache-2.0
"""Fits scikit-learn's models in children, after the parent has fitted the same: gradient boosting
idle, PCA while another thread is inside PCA: sklearn_fork.py boosting|pca"""
import contextlib
import sys

import numpy as np
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingRegressor

import wild

data = np.random.default_rng(1).standard_normal((1000, 50))


def boosting():
    return HistGradientBoostingRegressor(max_iter=2, max_depth=2).fit(
        data[:, 1:6], data[:, 0]).predict(data[:, 1:6])


def pca():
    return PCA(5).fit_transform(data)


fit = {"boosting": boosting, "pca": pca}[sys.argv[1]]
with wild.in_flight(pca) if fit is pca else contextlib.nullcontext():
    wild.fork_and_compare(fit)
