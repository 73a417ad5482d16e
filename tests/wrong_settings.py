"""Configurations that are refused, as TOML, and what is said of each."""

from __future__ import annotations

from convlstm.config import Training

BEYOND_SIGMOID = (
    'makes values below 0 and above 1, which [model] output "sigmoid" cannot predict; set it to "linear", and'
    ' [training] loss to "mse" or "mae"'
)
WRONG: dict[str, str] = {
    # An unknown name, and the nearest that is known.
    "[modell]": "unknown table 'modell'; did you mean model?",
    "[zzz]": "unknown table 'zzz'; known are data, model, training",
    "steps = 3": "unknown table 'steps'; did you mean steps in [training]?",
    "[training]\nlearning_rat = 1": "unknown setting 'learning_rat' in [training]; did you mean learning_rate?",
    "[data]\nbatch_size = 1": "unknown setting 'batch_size' in [data]; did you mean batch_size in [training]?",
    "[data]\nq = 1": "unknown setting 'q' in [data]; known are"
    " source, path, variable, axes, missing, scaling, rule, test_file, size, context, gap, horizon, stride,"
    " validation_frames, test_frames, test_sequences, validation_sequences",
    '"" = 3': "unknown table ''; known are data, model, training",
    '[training]\n"" = 3': "unknown setting '' in [training]; known are " + ", ".join(vars(Training())),
    "model = 3": "model must be a table of settings; got 3",
    "[[model]]": "model must be a table of settings; got [{}]",
    # A value of another type.  To Python True is an integer; to a reader of a configuration it is not.
    "[training]\nsteps = true": "[training] steps must be an integer; got true",
    "[training]\nsteps = 3.0": "[training] steps must be an integer; got 3.0",
    '[training]\nsteps = "3"': '[training] steps must be an integer; got "3"',
    "[training]\nlearning_rate = true": "[training] learning_rate must be a number; got true",
    '[training]\nlearning_rate = "fast"': '[training] learning_rate must be a number; got "fast"',
    "[model]\nhidden_channels = 64": "[model] hidden_channels must be a list of integers > 0; got 64",
    "[model]\nhidden_channels = []": "[model] hidden_channels must be a list of integers > 0; got []",
    "[model]\nhidden_channels = [8, 0]": "[model] hidden_channels must be a list of integers > 0; got [8, 0]",
    "[model]\nhidden_channels = [8, true]": "[model] hidden_channels must be a list of integers > 0; got [8, true]",
    '[training]\nloss = "msee"': '[training] loss must be one of "mse", "mae", "bce"; got "msee"; did you mean mse?',
    "[model]\nreadout_bias = 1": "[model] readout_bias must be true or false; got 1",
    '[model]\nbias = "pixl"': '[model] bias must be one of "channel", "pixel", "none"; got "pixl"; did you mean pixel?',
    "[model]\npeephole = false": '[model] peephole must be one of "channel", "pixel", "none"; got false',
    "[training]\nsteps = 1979-05-27": "[training] steps must be an integer; got 1979-05-27",
    "[data]\nsize = {a = [true]}": '[data] size must be an integer; got {"a" = [true]}',
    '[data]\nsource = "digit"': '[data] source must be one of "digits", "moving-mnist", "frames"; got "digit"; did you'
    " mean digits?",
    '[data]\nmissing = "-9999"': '[data] missing must be a number or "none"; got "-9999"',
    "[data]\nmissing = true": '[data] missing must be a number or "none"; got true',
    '[training]\nloss = ["mse"]': '[training] loss must be one of "mse", "mae", "bce"; got ["mse"]; did you mean mse?',
    # A number out of its range.
    f"[data]\nsize = 0x1{99 * '0'}": "[data] size is too large; got an integer of 397 bits",
    "[data]\nsize = 15": "[data] size must be ≥ 16; got 15",
    f"[training]\nseed = {2**64}": f"[training] seed must be ≥ 0 and < 2**64; got {2**64}",
    "[training]\nlearning_rate = 1e39": "[training] learning_rate must be > 0 and finite in float32; got 1e+39",
    "[training]\nlearning_rate = 1e-39": "[training] learning_rate must be > 0 and finite in float32; got 1e-39",
    "[training]\nepsilon = 1e-300": "[training] epsilon must be > 0 and finite in float32; got 1e-300",
    "[training]\nclip_at = 1e-300": "[training] clip_at must be > 0 and finite in float32; got 1e-300",
    "[model]\nforget_bias = -1e39": "[model] forget_bias must be finite in float32; got -1e+39",
    "[training]\nsteps = 0": "[training] steps must be > 0; got 0",
    "[data]\nhorizon = -1": "[data] horizon must be > 0; got -1",
    "[training]\nseed = -1": "[training] seed must be ≥ 0 and < 2**64; got -1",
    "[training]\nlearning_rate = 0": "[training] learning_rate must be > 0 and finite in float32; got 0.0",
    "[training]\nlearning_rate = nan": "[training] learning_rate must be > 0 and finite in float32; got nan",
    "[training]\nlearning_rate = inf": "[training] learning_rate must be > 0 and finite in float32; got inf",
    "[training]\nlearning_rate = 1" + 400 * "0": "[training] learning_rate is too large; got an integer of 1329 bits",
    "[training]\nbeta1 = 1": "[training] beta1 must be ≥ 0 and < 1; got 1.0",
    "[model]\ndropout = 1": "[model] dropout must be ≥ 0 and < 1; got 1.0",
    "[model]\nrecurrent_dropout = -0.5": "[model] recurrent_dropout must be ≥ 0 and < 1; got -0.5",
    "[model]\nforget_bias = inf": "[model] forget_bias must be finite in float32; got inf",
    "[data]\nvalidation_sequences = -1": "[data] validation_sequences must be ≥ 0; got -1",
    "[data]\ngap = -1": "[data] gap must be ≥ 0; got -1",
    '[data]\nsource = "frames"\nstride = 0': "[data] stride must be > 0; got 0",
    "[data]\nmissing = inf": "[data] missing must be finite; got inf",
    "[training]\nkeep_checkpoints = 0": "[training] keep_checkpoints must be > 0; got 0",
    # Settings that nothing reads.
    "[training]\nmomentum = 0.5": '[training] momentum is read only where optimizer is "momentum"; it is "adam"',
    '[training]\noptimizer = "sgd"\nbeta1 = 0.5': '[training] beta1 is read only where optimizer is "adam" or "adamw";'
    ' it is "sgd"',
    "[training]\nweight_decay = 0": '[training] weight_decay is read only where optimizer is "adamw"; it is "adam"',
    "[training]\nstep_every = 7": '[training] step_every is read only where schedule is "step"; it is "linear"',
    '[training]\nclipping = "none"\nclip_at = 2': '[training] clip_at is read only where clipping is "value" or'
    ' "tensor" or "global" or "normalise"; it is "none"',
    '[model]\nkind = "encoder-forecaster"\n[training]\ntruncate = 2': "[training] truncate is read only where [model]"
    ' kind is "next-frame"; it is "encoder-forecaster"',
    '[model]\nkind = "encoder-forecaster"\n[training]\nsampling_steps = 2': "[training] sampling_steps is read"
    ' only where [model] kind is "next-frame"; it is "encoder-forecaster"',
    '[model]\nweights = "w.npz"\nforget_bias = 3': '[model] forget_bias is read only where weights is "" or bias is'
    ' "none", for weights hold a bias; they are "w.npz" and "channel"',
    '[data]\npath = "my.nc"': '[data] path is read only where source is "frames" or "moving-mnist"; it is "digits"',
    '[data]\nsource = "frames"\nsize = 64': '[data] size is read only where source is "digits" or "moving-mnist"; it'
    ' is "frames"',
    '[data]\nsource = "moving-mnist"\nstride = 2': '[data] stride is read only where source is "frames"; it is'
    ' "moving-mnist"',
    '[data]\nrule = "shi2015"': '[data] rule is read only where source is "moving-mnist"; it is "digits"',
    # Settings that do not go together.
    '[data]\nsource = "frames"': f'[data] scaling "standard" {BEYOND_SIGMOID}',
    '[data]\nsource = "frames"\nscaling = "seasonal"': f'[data] scaling "seasonal" {BEYOND_SIGMOID}',
    "[model]\nresidual = true": '[model] residual needs output "linear"; got "sigmoid"',
    '[data]\nsource = "moving-mnist"\ntest_file = "t.npy"': "[data] test_file holds frames of 64×64 pixels, so size"
    " must be 64; got 32",
    "[training]\nsteps = 5\nwarmup_steps = 5": "[training] warmup_steps must be fewer than steps; got 5 and 5",
    "[data]\nhorizon = 1\n[training]\nsampling_steps = 9": "[training] sampling_steps needs [data] horizon ≥ 2: of one"
    " predicted frame none is fed back; got 9",
    "[data]\nsize = 30\n[model]\npatch = 4": "[model] patch must divide [data] size; got 4 and 30",
    '[model]\noutput = "linear"': '[training] loss "bce" needs [model] output "sigmoid"; got "linear"',
}
