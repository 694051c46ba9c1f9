"""The examples for MLflow and Weights & Biases, where these are installed, without a network.

MLflow's smaller package will do: `pip install mlflow-skinny wandb`.
"""

import ast
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.paths import ROOT

EXAMPLES = ("mlflow_callback", "wandb_callback")


def run(code: str, folder: Path, package: str, **variables: str) -> str:
    """What a program prints in a folder of its own, where a package is installed."""
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    path = os.pathsep.join(filter(None, [str(ROOT), str(ROOT / "examples"), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", **variables}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


MLFLOW = """
import runpy, json, mlflow
runpy.run_module("mlflow_callback", run_name="__main__")
client = mlflow.MlflowClient()
(run,) = client.search_runs(["0"])
points = {name: [each.step for each in client.get_metric_history(run.info.run_id, name)] for name in run.data.metrics}
print(json.dumps([points, run.data.params, run.info.status]))
"""


def test_mlflow_has_each_record_once(tmp_path: Path) -> None:
    """Importing MLflow takes seconds."""
    variables = {"MLFLOW_TRACKING_URI": "file:mlruns", "MLFLOW_ALLOW_FILE_STORE": "true"}
    out = run(MLFLOW, tmp_path, "mlflow", **variables)
    points, parameters, status = json.loads(out.splitlines()[-1])
    figures = [f"{part}_{figure}" for part in ("train", "validation") for figure in ("accuracy", "loss")]
    assert sorted(points) == sorted([*figures, "learning_rate"])
    for steps in points.values():
        assert len(steps) == 12
        assert steps == sorted(set(steps))
    assert (parameters["epochs"], parameters["data"], status) == ("3", "digits", "FINISHED")


WANDB = """
import runpy, json, wandb
logged, log = [], wandb.Run.log
wandb.Run.log = lambda self, figures, step: (logged.append([step, sorted(figures)]), log(self, figures, step=step))
runpy.run_module("wandb_callback", run_name="__main__")
print(json.dumps(logged))
"""


def test_wandb_has_each_record_once(tmp_path: Path) -> None:
    """It starts a process of its own, which takes seconds."""
    variables = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_DIR": str(tmp_path)}
    logged = json.loads(run(WANDB, tmp_path, "wandb", **variables).splitlines()[-1])
    figures = [f"{figure}/{part}" for part in ("train", "validation") for figure in ("accuracy", "loss")]
    assert len({step for step, _ in logged}) == len(logged) == 12
    assert {tuple(names) for _, names in logged} == {tuple(sorted([*figures, "learning_rate"]))}
    (kept,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    assert kept.stat().st_size > 1000


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_callback_of_an_example_is_ten_lines_and_a_page_names_it(name: str) -> None:
    source = (ROOT / "examples" / f"{name}.py").read_text("utf-8")
    (made,) = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    lines = source.splitlines()[made.lineno - 1 : made.end_lineno]
    code = [line for line in lines if line.strip() and '"""' not in line]
    assert len(code) <= 10
    assert f"examples/{name}.py" in (ROOT / "docs" / "tensorboard.md").read_text("utf-8")
