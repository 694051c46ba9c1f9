"""The metrics of a run: in metrics.json, in the last lines, in report.md and in `gpunn evaluate`."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cli_helpers import Done, experiment_toml, gpunn, own_folder, without_pictures

import gpunn as gn
from gpunn.errors import MemoryShortageError
from gpunn.experiments import results
from gpunn.experiments.markdown import block, cell, code, escaped
from gpunn.train.table import width_of

folder = pytest.fixture(autouse=True)(own_folder)
fast = pytest.fixture(autouse=True)(without_pictures)

RNG = np.random.default_rng(5)
X = RNG.normal(size=(400, 4))
BAD = ["a|b", "*bold* _it_ `code`", "<script>alert(1)</script>", "[link](http://x.y)", "# head", "1. one", "- item",
       "$x$ & &amp; ~~no~~", "http://x.y www.x.y a@b.c", "\\", "数字" * 60, "![i](j)", "--- | ---"]  # fmt: skip


def trained(y: Any, *, loss: str = "", test: Any = 100, units: Any = "outputs", **training: Any) -> tuple[Done, Any]:
    """What a run on X and y said, and its metrics; `test` of the samples are a test set."""
    arrays = {"x_train": X[test or 0 :], "y_train": y[test or 0 :]}
    arrays |= {"x_test": X[:test], "y_test": y[:test]} if test else {}
    np.savez("mine.npz", **arrays)
    usual = {"epochs": 5, "batch_size": 50, "device": "cpu"}
    text = experiment_toml([], {"type": "SGD", "learning_rate": 0.05}, **usual | training)
    text += f'[loss]\ntype = "{loss}"\n' if loss else ""
    Path("small.toml").write_text(text.replace('units = "outputs"', f"units = {json.dumps(units)}"))
    done = gpunn("train", "mine.npz", "--recipe", "small.toml", "--out", "run")
    assert done.code == 0, done.err
    return done, json.loads(Path("run/metrics.json").read_text("utf-8"))


def page() -> str:
    return Path("run/report.md").read_text("utf-8")


def section(title: str) -> list[str]:
    """The lines of a section of the page."""
    found = re.search(rf"^## {title}\n\n(.*?)(?=\n## |\Z)", page(), re.MULTILINE | re.DOTALL)
    return found[1].splitlines() if found else []


def cells(line: str) -> list[str]:
    """The cells of a row of a table, split where no backslash stands before the line."""
    return [text.strip() for text in re.split(r"(?<!\\)(?:\\\\)*\|", line)[1:-1]]


def line_of(done: Done, label: str) -> str:
    found = [line[15:] for line in done.out.splitlines() if line[:15].rstrip() == label]
    assert len(found) == 1, done.out
    return found[0]


def test_metrics_of_classes_stand_in_every_place() -> None:
    names = np.array(["ant", "bee", "cat"])
    y = names[np.argmax(X[:, :3], axis=1)]
    done, metrics = trained(y)
    model, data = gn.load_model("run/model.safetensors"), gn.load_data("mine.npz")
    report = model.report(data)
    assert metrics["test"] == json.loads(json.dumps(report.to_dict()))
    assert metrics["validation"] is None
    assert metrics["test"]["accuracy"] == metrics["test_accuracy"]
    assert [each["name"] for each in metrics["test"]["classes"]] == names.tolist()
    assert np.trace(metrics["test"]["confusion_matrix"]) == round(100 * metrics["test_accuracy"])
    row = ", ".join(map(str, metrics["test"]["confusion_matrix"][0]))
    assert f"[{row}]" in Path("run/metrics.json").read_text()  # in one line
    rows = [cells(line) for line in section("Result") if line.startswith("|")]
    assert ["ant", f"{report['ant'].precision:.4f}"] in [row[:2] for row in rows]
    assert "**bee**" in [row[0] for row in rows]
    assert f"report         {Path('run/report.md')}" in done.out
    said = gpunn("evaluate", "run").out
    assert said.startswith("mine, test set (100): accuracy ")
    assert said.rstrip("\n").endswith(str(report))
    assert "AUC" not in done.out
    assert "macro F1" not in done.out  # the classes are of one size


def test_few_of_a_class_show_the_macro_f1_and_the_worst_class() -> None:
    y = (X[:, 0] > 1.3).astype(int)
    done, metrics = trained(y)
    test = metrics["test"]
    assert line_of(done, "AUC") == f"{test['auc']:.4f}"
    assert line_of(done, "macro F1").startswith(f"{test['macro']['f1']:.4f}; lowest for class 1: ")
    assert any("classes differ in size" in line for line in section("Warnings"))


def test_a_class_that_is_never_predicted_is_named() -> None:
    y = (np.arange(400) % 40 == 0).astype(int)
    done, metrics = trained(y, epochs=60)
    assert line_of(done, "not predicted") == "1: no sample was taken for it"
    assert metrics["test"]["classes"][1]["f1"] == 0
    assert any("never predicted" in line for line in section("Warnings"))
    assert "never predicted: 1" in gpunn("evaluate", "run").out


def test_metrics_of_numbers_stand_in_every_place() -> None:
    y = X[:, :2] * [1, 3] + RNG.normal(size=(400, 2))
    done, metrics = trained(y)
    test = metrics["test"]
    assert line_of(done, "MAE") == f"{test['mae']:.4f}, mean of the outputs"
    together = test["together"]["rmse"], test["together"]["r2"]
    assert together == pytest.approx((metrics["test_rmse"], metrics["test_r2"]))
    least = min(range(2), key=lambda k: test["outputs"][k]["r2"])
    assert line_of(done, "lowest R²") == f"{test['outputs'][least]['r2']:.4f} of output {least + 1}"
    rows = [cells(line)[0] for line in section("Result") if line.startswith("|")]
    assert rows[2:] == ["1", "2", "mean", "all together"]
    assert "all together" in gpunn("evaluate", "run").out


@pytest.mark.parametrize("outputs", [1, 3])
def test_metrics_of_outputs_stand_in_every_place(outputs: int) -> None:
    done, metrics = trained((X[:, :outputs] > 0).astype(float), loss="BinaryCrossEntropy")
    test = metrics["test"]
    assert len(test["outputs"]) == outputs
    assert line_of(done, "macro F1").startswith(f"{test['macro']['f1']:.4f}")
    assert line_of(done, "AUC").startswith(f"{np.mean([each['auc'] for each in test['outputs']]):.4f}")
    assert "exact" in test
    assert [cells(line)[0] for line in section("Result") if line.startswith("|")][2] == "1"
    assert "all outputs right" in gpunn("evaluate", "run").out or outputs == 1


def test_without_a_test_set_the_validation_set_is_measured_and_that_is_said() -> None:
    done, metrics = trained(np.argmax(X[:, :3], axis=1), test=0)
    assert metrics["test"] is None
    assert metrics["test_accuracy"] is None
    assert metrics["validation"]["samples"] == metrics["validation_samples"] == 40
    assert line_of(done, "validation set").endswith("(there is no test set)")
    assert any("there is no test set" in line for line in section("Warnings"))
    assert any("On the validation set, 40 samples" in line for line in section("Result"))


def test_without_anything_to_measure_on_that_is_said() -> None:
    done, metrics = trained(np.argmax(X[:, :3], axis=1), test=0, data={"source": "mine.npz", "validation": 0})
    assert metrics["test"] is metrics["validation"] is None
    assert line_of(done, "metrics") == "none: there is neither a test set nor a validation set"
    assert any("nothing shows how the network answers" in line for line in section("Warnings"))


def test_names_of_any_text_break_neither_the_page_nor_a_table() -> None:
    y = np.array(BAD)[np.arange(400) % len(BAD)]
    _, metrics = trained(y, epochs=1)
    assert [each["name"] for each in metrics["test"]["classes"]][:2] == sorted(BAD)[:2]
    tables = re.findall(r"(?:^\|.*\n)+", page(), re.MULTILINE)
    assert len(tables) == 5  # metrics, confusion matrix, counts, options, versions
    for table in tables:
        lines = table.splitlines()
        assert {len(cells(line)) for line in lines} == {len(cells(lines[1]))}
        assert set(lines[1]) <= set("|-: ")
    assert "\n# " not in page()
    assert not re.search(r"(?<!\\)<|(?<!\\)\[link|https?:|www\.", page())
    said = gpunn("evaluate", "run").out.splitlines()
    assert max(map(width_of, said)) <= 80
    assert all(ord(character) >= 32 for line in said for character in line)


@pytest.mark.parametrize(
    "text", [*BAD, "`", " ", "``a`b", "", "a\nb", "\x1b[31m", "0.5", "7.", "12) a", "+ a", "=", "&lt;", "a" * 900]
)
def test_a_text_stays_one_line_of_text(text: str) -> None:
    for made in (escaped(text), cell(text), code(text)):
        assert made.strip()
        assert "\n" not in made
        assert made.isprintable()
    assert not re.match(r"\s*(?:[-+*#>=]|\d+[.)](?:\s|$))", escaped(text))
    assert not re.search(r"(?<!\\)(?:\\\\)*[`*_<>\[\]|$~]", escaped(text))
    assert not re.search(r"(?<!\\)\|", code(text))
    ticks = re.match("`+", code(text))
    assert ticks
    assert code(text).endswith(ticks[0])
    assert ticks[0] not in code(text).strip("`")


def test_a_block_ends_at_its_own_fence() -> None:
    assert block("a\n```\nb") == ["````text", "a", "```", "b", "````"]


def test_a_run_of_many_classes_keeps_its_metrics_readable() -> None:
    """Above 200 classes no matrix, above 1,000 no list of them; the page shows the worst."""
    _, metrics = trained(np.arange(400) % 250, epochs=1, test=150)
    assert metrics["test"]["confusion_matrix"] is None
    assert len(metrics["test"]["classes"]) == 250
    assert 0 <= metrics["test"]["top_5_accuracy"] <= 1
    assert "The 50 classes of fewest training samples, of 250:" in page()
    assert len(page().splitlines()) < 220


def test_metrics_that_do_not_fit_into_memory_do_not_cost_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def short(*_: Any) -> None:
        raise MemoryShortageError("what is kept takes too much")

    monkeypatch.setattr(results, "report_on", short)
    done, metrics = trained(np.argmax(X[:, :3], axis=1))
    assert "no metrics beside those of the loss: what is kept takes too much" in done.out
    assert metrics["test"] is None
    assert metrics["test_accuracy"] > 0.3
    assert metrics["finished"] is True
    assert page()


def test_the_page_is_of_the_run_that_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    trained(np.argmax(X[:, :3], axis=1))
    there: list[bool] = []
    train = gn.train.trainer.Trainer.train

    def watched(trainer: Any, *given: Any) -> None:
        there.append(Path("run/report.md").exists())
        train(trainer, *given)

    monkeypatch.setattr("gpunn.train.trainer.Trainer.train", watched)
    assert gpunn("train", "--resume", "run", "--epochs", 6).code == 0
    assert there == [False]
    assert "| training.epochs | `6` |" in page()


def test_a_diverged_run_can_be_resumed_with_metrics_of_any_size() -> None:
    """Where metrics are not read whole, that a run is finished would not be known."""
    _, metrics = trained(np.arange(400) % 200, epochs=1, test=200)
    Path("run/metrics.json").write_text(json.dumps({**metrics, "more": "x" * (2 << 20)}))
    done = gpunn("train", "--resume", "run")
    assert done.code == 1
    assert "run is finished" in done.err
