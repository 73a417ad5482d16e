"""Presets: what is published comes out as published, and each is a configuration that can be begun."""

from __future__ import annotations

import pytest

from convlstm.config import PRESETS, Config
from convlstm.data.moving_mnist import RULES
from convlstm.from_config import make_optimizer, untrained_model


def test_digits_are_all_defaults() -> None:
    assert PRESETS["digits"] == Config()


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("shi2015", 7_585_296),  # of table 1
        ("openstl-s", 11_675_648),  # of 15.0M, without the two convolutions of each cell that nothing reads
    ],
)
def test_a_published_network_has_as_many_parameters_as_published(name: str, count: int) -> None:
    model = untrained_model(PRESETS[name], "numpy", shape=(1, 64, 64))
    assert sum(parameter.size for parameter in model.parameters.values()) == count


@pytest.mark.parametrize("name", ["shi2015", "openstl-s"])
def test_what_is_published_on_moving_mnist_shows_ten_frames_of_twenty(name: str) -> None:
    data = PRESETS[name].data
    assert (data.source, data.size, data.context, data.gap, data.horizon) == ("moving-mnist", 64, 10, 0, 10)
    assert data.test_sequences == RULES[data.rule].sequences["test"]


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_a_model_and_an_optimizer(name: str) -> None:
    config = PRESETS[name]
    model = untrained_model(config, "numpy", shape=(1, 16, 24))
    assert model.parameters
    assert make_optimizer(config).learning_rate == config.training.learning_rate


@pytest.mark.parametrize("name", ["frames", "sst"])
def test_a_model_of_ones_own_frames_starts_from_persistence(name: str) -> None:
    config = PRESETS[name]
    assert (config.data.source, config.model.residual, config.model.output) == ("frames", True, "linear")
