"""Write tables of scikit-learn as CSV, split by seeds, and score its MLPs with their defaults on each split, as JSON.

python benchmarks/workers/sklearn_tables.py FOLDER SEED,SEED,... TABLE,TABLE,...
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import sklearn
from sklearn import datasets
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

TEST = 0.25


def main(folder: Path, seeds: list[int], names: list[str]) -> dict[str, Any]:
    scores: dict[str, dict[str, list[float]]] = {}
    for name in names:
        frame = getattr(datasets, f"load_{name}")(as_frame=True).frame
        is_regression = name == "diabetes"
        scores[name] = {"plain": [], "standardised": []}
        for seed in seeds:
            labels = None if is_regression else frame["target"]
            train, test = train_test_split(frame, test_size=TEST, random_state=seed, stratify=labels)
            for part, rows in (("train", train), ("test", test)):
                rows.to_csv(folder / f"{name}-{seed}-{part}.csv", index=False)
            for way in scores[name]:
                model: Any = (MLPRegressor if is_regression else MLPClassifier)(random_state=seed)
                model = make_pipeline(StandardScaler(), model) if way == "standardised" else model
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # its 200 iterations often end before it has converged
                    model.fit(train.drop(columns="target"), train["target"])
                scores[name][way].append(float(model.score(test.drop(columns="target"), test["target"])))
    return {"scikit-learn": sklearn.__version__, "scores": scores}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), list(map(int, sys.argv[2].split(","))), sys.argv[3].split(","))))
