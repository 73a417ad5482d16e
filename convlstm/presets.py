"""Configurations by name: what is published, and what shows the framework on real data."""

from __future__ import annotations

from convlstm.settings import Config, Data, Model, Training

# Small enough for a minute on two cores; its data are part of scikit-learn.
DIGITS = Config()

# Shi et al., NIPS 2015, section 4.1, the 3-layer network of table 1: it reads 10 frames and predicts 10.
SHI_2015 = Config(
    Data(
        source="moving-mnist", rule="shi2015", size=64, context=10, horizon=10, test_sequences=3000,
        validation_sequences=100,
    ),
    Model(kind="encoder-forecaster", hidden_channels=(128, 64, 64), kernel_size=5, patch=4, peephole="channel"),
    Training(
        steps=100_000, batch_size=16, optimizer="rmsprop", learning_rate=1e-3, schedule="constant", clipping="none",
        recompute=2, checkpoint_every=500,
    ),
)  # fmt: skip

# ConvLSTM-S of OpenSTL (Tan et al., NeurIPS 2023, datasets and benchmarks), as its configuration for Moving MNIST has
# it: 200 epochs of 10 000 sequences.
OPENSTL_S = Config(
    Data(
        source="moving-mnist", rule="srivastava2015", size=64, context=10, horizon=10, test_sequences=10_000,
        validation_sequences=100,
    ),
    Model(
        hidden_channels=(128, 128, 128, 128), kernel_size=5, patch=4, bias=None, forget_bias=0.0, readout_bias=False,
        output="linear",
    ),
    Training(
        steps=125_000, batch_size=16, loss="mse", learning_rate=5e-4, schedule="one-cycle", clipping="none",
        sampling_steps=50_000, checkpoint_every=500,
    ),
)  # fmt: skip

# Frames of one's own: the change of each field is predicted, so that training starts from persistence.
FRAMES = Config(
    Data(source="frames"),
    Model(kernel_size=3, patch=1, output="linear", residual=True),
    Training(loss="mse"),
)

# Sea-surface temperature near the equator: 54 months of OSTIA (Donlon et al. 2012), the last 12 held back.  Context,
# patch, channels and steps were chosen by the error on the 12 months before these, after training on the first 30.
SST = Config(
    Data(
        source="frames", path="package:iris_sample_data/sample_data/ostia_monthly.nc", scaling="seasonal", context=3,
        horizon=3, test_frames=12, validation_sequences=0,
    ),
    Model(hidden_channels=(16,), kernel_size=3, patch=2, output="linear", residual=True),
    Training(steps=60, loss="mse"),
)  # fmt: skip

PRESETS = {"digits": DIGITS, "shi2015": SHI_2015, "openstl-s": OPENSTL_S, "frames": FRAMES, "sst": SST}
