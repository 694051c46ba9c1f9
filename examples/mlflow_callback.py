"""A training tracked by MLflow: `pip install mlflow`, then `python examples/mlflow_callback.py`, then `mlflow ui`."""

import mlflow

import gpunn as gn


class MLflow(gn.Callback):
    """Logs parameters once, and the figures of each record under its step."""

    def on_train_begin(self, training: gn.TrainingView) -> None:
        mlflow.log_params({"layers": repr(training.model.layers), "batch_size": training.batch_size})
        mlflow.log_params({"epochs": training.epochs, "data": training.data.name, "device": training.device})

    def on_record(self, training: gn.TrainingView, record: gn.Record) -> None:
        figures = {f"{part}_{n}": x for part in ("train", "validation") for n, x in record.figures(part).items()}
        mlflow.log_metrics({**figures, "learning_rate": record.learning_rate}, step=record.step)


if __name__ == "__main__":
    model = gn.Sequential([gn.Dense(64), gn.ReLU(), gn.Dense(10)])
    with mlflow.start_run(run_name="digits"):
        model.fit(gn.load_data("digits"), epochs=3, callbacks=[MLflow()])
