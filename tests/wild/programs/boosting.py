# SPDX-License-Identifier: Apache-2.0
"""Trains LightGBM or XGBoost in children of os.fork or in a Pool. The parent has trained before:
boosting.py lightgbm|xgboost fork|pool"""
import multiprocessing
import sys

import numpy as np

import wild
from pool_work import SEEDS, answer, run

data = np.random.default_rng(1).standard_normal((1000, 20))


def lightgbm(target):
    from lightgbm import LGBMRegressor
    model = LGBMRegressor(n_estimators=2, max_depth=3, deterministic=True, force_col_wise=True,
                          verbose=-1)
    return model.fit(data, target).predict(data)


def xgboost(target):
    from xgboost import XGBRegressor
    return XGBRegressor(n_estimators=2, max_depth=3).fit(data, target).predict(data)


def train(seed):
    model = {"lightgbm": lightgbm, "xgboost": xgboost}[sys.argv[1]]
    return answer(seed, model(data[:, seed]))


def pool():
    with multiprocessing.Pool(4) as workers:
        return workers.map(train, SEEDS, chunksize=1)


if sys.argv[2] == "pool":
    run(pool, train, in_flight=False)
else:
    wild.fork_and_compare(lambda: train(0)[1])
