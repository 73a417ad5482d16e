"""Training: what a run leaves behind, what it leaves when it ends early, and whose files it never touches."""

from __future__ import annotations

import errno
import json
import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest

from convlstm import from_config, trainer, training
from convlstm.backends import Array
from convlstm.config import Config, Data, Model, Training, load_config
from convlstm.data.digits import digit_sequences
from convlstm.from_config import make_model
from convlstm.ledger import Ledger
from convlstm.next_frame import NextFrame
from convlstm.not_finite import NotFinite
from convlstm.optimizers import SGD
from convlstm.parameter_files import assign_parameters, load_parameters, save_parameters
from convlstm.run_directory import CHECKPOINTS, RUN_FILES, RunDirectoryError
from convlstm.run_environment import environment
from convlstm.scoring import evaluate
from convlstm.training import Outcome, train

pytest.importorskip("sklearn", reason="the digits come with scikit-learn, which is not installed")

TINY = Config(
    Data(size=16, context=2, horizon=3, test_sequences=4, validation_sequences=2),
    Model(hidden_channels=(3,), kernel_size=3, patch=4, output="sigmoid"),
    Training(steps=3, batch_size=2, seed=5, loss="bce", optimizer="adam", schedule="constant", clipping="none"),
)
DIVERGING = Config(
    TINY.data,
    replace(TINY.model, output="linear"),
    Training(steps=30, batch_size=2, loss="mse", optimizer="sgd", learning_rate=1e30, clipping="none"),
)
Reports = list[tuple[int, float]]


class Run:
    """A run in a directory of its own: `report` collects what was reported, and a subclass may do more."""

    def __init__(self, directory: Path, config: Config = TINY) -> None:
        self.directory, self.config = directory, config
        self.reports: Reports = []
        directory.mkdir(exist_ok=True)

    def report(self, done: int, loss: float) -> None:
        self.reports.append((done, loss))

    def train(self) -> Outcome:
        return train(self.config, self.directory, backend="numpy", report=self.report)

    def files(self) -> set[str]:
        return {path.name for path in self.directory.iterdir()}

    def weights(self) -> dict[str, Array]:
        return load_parameters(self.directory / "weights.safetensors")

    def ledger(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.directory / "ledger.jsonl").read_text().splitlines()]

    def scores(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads((self.directory / "scores.json").read_text(), parse_constant=_not_json)
        return loaded


def _not_json(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def assert_same_bits(one: Mapping[str, Array], other: Mapping[str, Array]) -> None:
    assert {name: w.tobytes() for name, w in one.items()} == {name: w.tobytes() for name, w in other.items()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Outcome]:
    run = Run(tmp_path_factory.mktemp("finished") / "run")
    return run, run.train()


@pytest.fixture
def no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture takes longer than these runs."""
    monkeypatch.setattr(training, "draw_forecast", lambda config, model, path, source: None)


# A finished run -------------------------------------------------------------------------------------------------------


def test_a_run_leaves_its_files_and_no_others(finished: tuple[Run, Outcome]) -> None:
    run, outcome = finished
    assert run.files() == {*RUN_FILES, CHECKPOINTS}
    assert (run.directory / "forecast.png").read_bytes().startswith(b"\x89PNG")
    assert outcome == Outcome(steps=3, interrupted=None, scores=run.scores())


def test_its_config_is_the_one_that_was_trained(finished: tuple[Run, Outcome]) -> None:
    run, _ = finished
    assert load_config(str(run.directory / "config.toml")) == TINY


def test_its_ledger_has_a_line_for_every_reported_step(finished: tuple[Run, Outcome]) -> None:
    run, _ = finished
    assert [(line["step"] + 1, line["loss"]) for line in run.ledger()] == run.reports
    assert [done for done, _ in run.reports] == [1, 2, 3]


def test_its_weights_are_those_of_the_plain_loop(finished: tuple[Run, Outcome]) -> None:
    """Batch k holds sequences 2k and 2k + 1 of the training split; seed, data and model are as configured."""
    run, _ = finished
    model = NextFrame(1, (3,), 3, patch=4, output="sigmoid", spatial_shape=(4, 4), backend="numpy", seed=5)
    model.start_from_mean(float(digit_sequences("train", range(32), seed=5, frames=5, size=16).mean(dtype=np.float64)))
    optimizer = from_config.make_optimizer(TINY)
    for step, (_, loss) in enumerate(run.reports):
        frames = digit_sequences("train", [2 * step, 2 * step + 1], seed=5, frames=5, size=16)
        value, gradients = model.loss_and_gradients(frames, 2, "bce")
        assert value == loss
        optimizer.step(model.parameters, gradients)
    assert_same_bits(run.weights(), model.parameters)


@pytest.mark.usefixtures("no_picture")
def test_the_schedule_sets_the_learning_rate_of_each_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = []

    class Recording(SGD):
        def step(self, parameters: dict[str, Array], gradients: Mapping[str, Array]) -> None:
            rates.append(self.learning_rate)

    monkeypatch.setattr(trainer, "make_optimizer", lambda config: Recording(1.0))
    slowing = replace(TINY, training=replace(TINY.training, steps=4, schedule="linear", learning_rate=8.0))
    Run(tmp_path / "run", slowing).train()
    assert rates == [8.0, 6.0, 4.0, 2.0]


def test_its_scores_are_those_of_its_weights(finished: tuple[Run, Outcome]) -> None:
    run, _ = finished
    model = make_model(TINY, "numpy")
    assign_parameters(model.parameters, run.weights())
    frames = digit_sequences("test", range(4), seed=5, frames=5, size=16)
    forecast, truth = model.predict(frames[:, :2], 3), frames[:, 2:]
    scores = run.scores()
    assert scores["sequences"] == 4
    for name, guess in (("model", forecast), ("persistence", np.repeat(frames[:, 1:2], 3, axis=1))):
        squares = (guess.astype(np.float64) - truth) ** 2
        assert scores["overall"][name]["mse"] == pytest.approx(squares.mean())
        assert scores["by_lead_time"][name]["mse"] == pytest.approx([squares[:, k].mean() for k in range(3)])


def test_its_environment_says_what_the_numbers_may_depend_on(
    finished: tuple[Run, Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = finished
    written = json.loads((run.directory / "environment.json").read_text())
    assert written["backend"] == "numpy"
    assert written["packages"]["numpy"] == np.__version__
    assert written["packages"]["chainer"] == "7.8.1"
    monkeypatch.setenv("CONVLSTM_THREADS", "2")
    monkeypatch.setenv("A_TOKEN", "secret")
    variables = environment(make_model(TINY, "numpy").backend)["variables"]
    assert variables["CONVLSTM_THREADS"] == "2"
    assert "A_TOKEN" not in variables


@pytest.mark.usefixtures("no_picture")
def test_two_equal_runs_leave_equal_files(finished: tuple[Run, Outcome], tmp_path: Path) -> None:
    run, again = finished[0], Run(tmp_path / "again")
    again.train()
    for name in ("config.toml", "ledger.jsonl", "weights.safetensors", "scores.json"):
        assert (again.directory / name).read_bytes() == (run.directory / name).read_bytes()


def test_without_matplotlib_only_the_picture_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    run = Run(tmp_path / "run")
    outcome = run.train()
    assert outcome.scores == run.scores()
    assert outcome.no_forecast is not None
    assert 'pip install ".[plots]"' in outcome.no_forecast
    assert run.files() == {*RUN_FILES, CHECKPOINTS} - {"forecast.png"}


# A run that ends early ------------------------------------------------------------------------------------------------


class Interrupted(Run):
    """Presses Ctrl-C a number of times after its second step."""

    times = 1

    def report(self, done: int, loss: float) -> None:
        super().report(done, loss)
        if done == 2:
            for _ in range(self.times):
                signal.raise_signal(signal.SIGINT)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Python's own handler, also where pytest itself runs in the background and has the signal ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler  # training gives it back
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def two_steps(tmp_path: Path, no_picture: None) -> Run:
    run = Run(tmp_path / "two steps", replace(TINY, training=replace(TINY.training, steps=2)))
    run.train()
    return run


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_ends_after_the_step_with_all_of_it_saved(two_steps: Run, tmp_path: Path) -> None:
    run = Interrupted(tmp_path / "run")
    assert run.train() == Outcome(steps=2, interrupted=signal.SIGINT, scores=None)
    assert run.files() == {*RUN_FILES, CHECKPOINTS} - {"scores.json", "forecast.png"}
    assert run.ledger() == two_steps.ledger()
    assert_same_bits(run.weights(), two_steps.weights())


@pytest.mark.usefixtures("ctrl_c")
def test_a_second_ctrl_c_ends_at_once_with_all_whole_steps_saved(two_steps: Run, tmp_path: Path) -> None:
    run = Interrupted(tmp_path / "run")
    run.times = 2
    with pytest.raises(KeyboardInterrupt):
        run.train()
    assert run.ledger() == two_steps.ledger()
    assert_same_bits(run.weights(), two_steps.weights())


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_while_weights_are_saved_waits_for_them(
    finished: tuple[Run, Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(file: Path, weights: dict[str, Array]) -> None:
        signal.raise_signal(signal.SIGINT)
        save_parameters(file, weights)

    monkeypatch.setattr(training, "save_parameters", interrupted)
    run = Run(tmp_path / "run")
    assert run.train() == Outcome(steps=3, interrupted=signal.SIGINT, scores=None)
    assert_same_bits(run.weights(), finished[0].weights())


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_step_without_its_ledger_line_is_taken_back(
    fault: BaseException, two_steps: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights that are saved are always those of the ledger's last line."""
    append = Ledger.append

    def failing(ledger: Ledger, *arguments: Any) -> None:
        if ledger.steps == 2:
            raise fault
        append(ledger, *arguments)

    monkeypatch.setattr(Ledger, "append", failing)
    run = Run(tmp_path / "run")
    with pytest.raises((KeyboardInterrupt, RunDirectoryError)):
        run.train()
    assert run.ledger() == two_steps.ledger()
    assert_same_bits(run.weights(), two_steps.weights())


@pytest.mark.usefixtures("ctrl_c", "no_picture")
def test_a_job_that_ignores_ctrl_c_goes_on(tmp_path: Path) -> None:
    """A shell without job control starts its background jobs so; Ctrl-C is meant for another program then."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        outcome = Interrupted(tmp_path / "run").train()
    finally:
        ignored = signal.signal(signal.SIGINT, signal.default_int_handler)
    assert not outcome.interrupted
    assert outcome.steps == 3
    assert ignored is signal.SIG_IGN


@pytest.mark.usefixtures("no_picture")
def test_training_works_off_the_main_thread(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    thread = Thread(target=run.train)
    thread.start()
    thread.join()
    assert len(run.scores()) > 0


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    """With one error that says so: NumPy's own warnings, which are errors here, would come first."""
    run = Run(tmp_path / "run", DIVERGING)
    with pytest.raises(
        NotFinite,
        match=r"loss is (inf|nan) at step \d+, from sequence \d+ of split train; the weights before it are saved; try",
    ):
        run.train()
    assert "scores.json" not in run.files()
    assert 0 < len(run.ledger()) == len(run.reports) < 30
    assert all(np.isfinite(w).all() for w in run.weights().values())


def test_weights_that_are_not_finite_are_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Exploding(SGD):
        def step(self, parameters: dict[str, Array], gradients: Mapping[str, Array]) -> None:
            parameters["readout.b"] = parameters["readout.b"] + np.float32(np.inf)

    monkeypatch.setattr(trainer, "make_optimizer", lambda config: Exploding(1.0))
    run = Run(tmp_path / "run")
    with pytest.raises(
        NotFinite, match=r"^step 0 makes readout\.b infinite or NaN, with sequences 0 … 1 of split train; it is"
    ):
        run.train()
    assert run.ledger() == []
    assert_same_bits(run.weights(), make_model(TINY, "numpy").parameters)


def test_a_forecast_that_is_not_finite_is_no_score(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(TINY, "numpy")
    assert np.isfinite(evaluate(TINY, model)["overall"]["model"]["mse"])
    monkeypatch.setattr(model, "predict", lambda frames, horizon: np.full((4, 3, 1, 16, 16), np.nan, np.float32))
    with pytest.raises(NotFinite, match="the forecast after the last step is not finite"):
        evaluate(TINY, model)


# Where it starts, and where it cannot go on --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["weights.npz", "weights.safetensors", "weights"])
def test_a_run_starts_from_the_weights_of_another(finished: tuple[Run, Outcome], tmp_path: Path, name: str) -> None:
    """From each kind of file, a folder of text files too: the model is the finished run's, to the bit."""
    learnt = finished[0].weights()
    save_parameters(tmp_path / name, learnt)
    config = replace(TINY, model=replace(TINY.model, weights=str(tmp_path / name)))
    assert_same_bits(from_config.make_model(config, "numpy").parameters, learnt)


@pytest.mark.usefixtures("no_picture")
def test_a_full_disk_is_one_line_that_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(ledger: Ledger, line: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "ledger.jsonl"))

    monkeypatch.setattr(Ledger, "_write_whole", full)
    with pytest.raises(RunDirectoryError, match=r"cannot write to .*ledger.jsonl: No space left on device"):
        Run(tmp_path).train()
