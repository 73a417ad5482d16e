"""Weights from and to PyTorch and Keras, as dictionaries and lists of arrays; neither library is imported.

Ours are ``W_x`` (4C, Cin, K, K), ``W_h`` (4C, C, K, K), ``b`` (4C,), gates in the order i, f, g, o; in a stack their
names begin with ``layers.0.``, ``layers.1.``, ….  Others differ in names, in the order of axes and of gates, and in
whether x and h share a kernel.  Nothing is computed here: every number arrives with the bits that it had.

Sources:
    ndrplz/ConvLSTM_pytorch, convlstm.py: one ``nn.Conv2d`` over the channels [x, h], gates i, f, o, g.
    chengtan9907/OpenSTL, openstl/modules/convlstm_modules.py: one for x, one for h, no bias, gates i, f, g, o.
    keras-team/keras, keras/src/layers/rnn/conv_lstm.py: kernels (K, K, from, to), gates i, f, c, o, where c is our g.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Weights = dict[str, NDArray[Any]]
FLOATS = ("float16", "float32", "float64")

STACKED = re.compile(r"layers\.(\d+)\.(.+)")  # our name of a layer's parameter within a stack
NDRPLZ_CELL = re.compile(r"((?:cell_list\.\d+\.)?)conv\.(weight|bias)")
OPENSTL_CELL = re.compile(r"cell_list\.(\d+)\.(conv_[xh]\.0\.weight)")
# Every OpenSTL cell owns these two convolutions, and no line of its forward uses them.
OPENSTL_UNUSED = re.compile(r"cell_list\.\d+\.(conv_o\.0|conv_last)\.weight")


# PyTorch, ndrplz's layout ---------------------------------------------------------------------------------------------


def from_pytorch(state_dict: Mapping[str, Any], prefix: str = "", readout: str | None = None) -> Weights:
    """Return our parameters from the weights of ndrplz's ``ConvLSTM``, or of one ``ConvLSTMCell``.

    Args:
        state_dict: what ``module.state_dict()`` or ``load_parameters`` returned: tensors, on any device, or arrays, by
            name. ``cell_list.0.conv.weight`` (4C, Cin + C, K, K), ``cell_list.0.conv.bias`` (4C,) or none, and so on;
            of a cell ``conv.weight`` and ``conv.bias``.
        prefix: what stands before these names where the module is part of a larger one, for example ``"encoder."``,
            or ``"cell_list.1."`` for that cell alone. Names that do not begin with it are left alone.
        readout: the full name of the 1×1 ``nn.Conv2d`` over the last layer's h, for example ``"head"``; None for none.

    Returns:
        NumPy arrays of their own, ``layers.0.W_x`` and so on; of one cell ``W_x``, ``W_h``, ``b``. A read-out comes as
        ``readout.W`` and ``readout.b``, zeros where it has no bias.

    Raises:
        TypeError: `state_dict` is not a mapping.
        ValueError: a name, shape or dtype does not belong there; the message names it and what is right.
    """
    _check_mapping(state_dict)
    cells: dict[str, Weights] = {}  # "" or "cell_list.0." → weight, bias
    for key, tensor in state_dict.items():
        if not key.startswith(prefix) or key in _readout_keys(readout):
            continue
        match = NDRPLZ_CELL.fullmatch(key[len(prefix) :])
        if match is None:
            raise ValueError(
                f"{key!r} has no place in ndrplz's layout: right are '{prefix}cell_list.0.conv.weight' and …bias, "
                f"'{prefix}conv.weight' and …bias of one cell, and what readout= names"
            )
        cells.setdefault(match[1], {})[match[2]] = _array(key, tensor)
    if not cells:
        raise ValueError(
            f"no name begins with '{prefix}cell_list.' or '{prefix}conv.'; given are {_listed(state_dict)}"
        )
    parameters: Weights = {}
    below = None
    for cell, name in _in_order(cells, prefix):
        W_x, W_h = _split_kernel(prefix + cell + "conv.weight", cells[cell].get("weight"), below)
        parameters |= {name + "W_x": W_x, name + "W_h": W_h}
        bias = cells[cell].get("bias")
        if bias is not None:
            _check_shape(prefix + cell + "conv.bias", bias, W_h.shape[:1])
            parameters[name + "b"] = _swap_g_and_o(bias)
        below = W_h.shape[1]
    return parameters | _from_readout(state_dict, readout, below)


def to_pytorch(parameters: Mapping[str, NDArray[Any]], prefix: str = "", readout: str | None = None) -> Weights:
    """Return the weights of ndrplz's layout from ours; undoes `from_pytorch` with the same prefix and read-out.

    Args:
        parameters: of a stack, ``layers.0.W_x`` and so on, or of one layer, ``W_x``, ``W_h``, ``b``; NumPy arrays.
        prefix: to stand before the names, see `from_pytorch`.
        readout: the full name to give to ``readout.W`` and ``readout.b`` as an ``nn.Conv2d``, for example ``"head"``.

    Returns:
        NumPy arrays of their own, for ``module.load_state_dict({k: torch.from_numpy(v) for k, v in ….items()})``.

    Raises:
        TypeError: a parameter is not a NumPy array.
        ValueError: the layout has no place for a parameter: peepholes, layer norm, a bias per pixel, kernels over x and
            over h of different sizes, a read-out without a name; or its name or shape is not one of ours.
    """
    _check_arrays(parameters)
    layers, rest = _layers(parameters)
    weights: Weights = {}
    for index, layer in layers.items():
        ours, cell = ("", prefix) if index is None else (f"layers.{index}.", f"{prefix}cell_list.{index}.")
        W_x, W_h, b = _checked_layer(layer, ours, "ndrplz's layout")
        weights[cell + "conv.weight"] = _swap_g_and_o(np.concatenate((W_x, W_h), axis=1))
        if b is not None:
            weights[cell + "conv.bias"] = _swap_g_and_o(b)
    if readout is not None:
        for key, name in zip(_readout_keys(readout), ("readout.W", "readout.b"), strict=True):
            if name not in rest:
                raise ValueError(f"parameter {name!r} is missing, asked for by readout={readout!r}")
            weights[key] = np.array(rest.pop(name), order="C")
    for name in rest:
        raise ValueError(
            f"parameter {name!r} has no place in ndrplz's layout; a 1×1 nn.Conv2d of the larger module takes the "
            'read-out: name it, for example readout="head"'
        )
    return weights


def _in_order(cells: Mapping[str, Weights], prefix: str) -> list[tuple[str, str]]:
    """Return (PyTorch's name, ours) of each cell, first to last."""
    if set(cells) == {""}:
        return [("", "")]
    right = [(f"cell_list.{index}.", f"layers.{index}.") for index in range(len(cells))]
    for cell, _ in right:
        if cell not in cells:
            given = _listed(prefix + name for name in cells)
            raise ValueError(f"{prefix + cell + 'conv.weight'!r} is missing: cells count from 0; given are {given}")
    return right


def _split_kernel(key: str, weight: NDArray[Any] | None, below: int | None) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return (W_x, W_h) of the one kernel over [x, h], which is given `below` channels of x if that is known."""
    if weight is None:
        raise ValueError(f"{key!r} is missing, though its bias is there")
    C = weight.shape[0] // 4 if weight.ndim == 4 else 0
    Cin = weight.shape[1] - C if C else 0
    if C == 0 or weight.shape[0] != 4 * C or Cin < 1:
        raise ValueError(f"{key!r} has shape {weight.shape}; it must be (4·C, Cin + C, K, K)")
    if below not in (None, Cin):
        right = (4 * C, below + C, *weight.shape[2:])
        raise ValueError(f"{key!r} has shape {weight.shape}; it must be {right}: the layer below has {below} channels")
    kernel = _swap_g_and_o(weight)
    return np.array(kernel[:, :Cin], order="C"), np.array(kernel[:, Cin:], order="C")


def _swap_g_and_o(gates: NDArray[Any]) -> NDArray[Any]:
    """Return i, f, o, g from i, f, g, o along the first axis, and the other way round; always a copy."""
    half, quarter = len(gates) // 2, len(gates) // 4
    return np.concatenate((gates[:half], gates[half + quarter :], gates[half : half + quarter]))


# PyTorch, OpenSTL's layout --------------------------------------------------------------------------------------------


def from_openstl(state_dict: Mapping[str, Any]) -> Weights:
    """Return the parameters of ``NextFrame(bias=None, …)`` from the weights of OpenSTL's ``ConvLSTM_Model``.

    Args:
        state_dict: tensors or arrays by name: ``cell_list.0.conv_x.0.weight`` (4C, Cin, K, K),
            ``cell_list.0.conv_h.0.weight`` (4C, C, K, K), and so on, ``conv_last.weight`` (D, C, 1, 1). What every
            cell owns and never uses, ``conv_o`` and a ``conv_last`` of its own, is left alone.

    Returns:
        NumPy arrays of their own: ``layers.0.W_x``, ``layers.0.W_h``, …, ``readout.W`` and, zeros, ``readout.b``.

    Raises:
        TypeError: `state_dict` is not a mapping.
        ValueError: a name, shape or dtype does not belong there, those of layer normalisation among them: OpenSTL
            normalises the two convolutions apart, our layers their sum.
    """
    _check_mapping(state_dict)
    layers: dict[int, Weights] = {}
    for key, tensor in state_dict.items():
        match = OPENSTL_CELL.fullmatch(key)
        if match:
            layers.setdefault(int(match[1]), {})[match[2]] = _array(key, tensor)
        elif key != "conv_last.weight" and not OPENSTL_UNUSED.fullmatch(key):
            hint = ": it normalises x and h apart, our layers their sum" if re.search(r"conv_.\.1\.", key) else ""
            raise ValueError(f"{key!r} has no place in OpenSTL's ConvLSTM_Model without layer normalisation{hint}")
    parameters: Weights = {}
    below = None
    for index in range(max(len(layers), 1)):
        W_x, W_h = (
            _present(layers.get(index, {}), part, f"cell_list.{index}.{part}", state_dict)
            for part in ("conv_x.0.weight", "conv_h.0.weight")
        )
        _check_pair(f"cell_list.{index}.conv_x.0.weight", W_x, f"cell_list.{index}.conv_h.0.weight", W_h, below)
        parameters |= {f"layers.{index}.W_x": np.array(W_x), f"layers.{index}.W_h": np.array(W_h)}
        below = W_h.shape[1]
    return parameters | _from_readout(state_dict, "conv_last", below)


# Keras ----------------------------------------------------------------------------------------------------------------


def from_keras(weights: Sequence[Any], name: str = "") -> Weights:
    """Return the parameters of one layer from ``layer.get_weights()`` of a Keras 3 ``ConvLSTM2D``.

    Args:
        weights: the kernel (K, K, Cin, 4C), the recurrent kernel (K, K, C, 4C) and, with ``use_bias``, the bias (4C,).
        name: of our layer, to stand before the names, for example ``"layers.0."``.

    Returns:
        NumPy arrays of their own, ``W_x``, ``W_h`` and, if there is a bias, ``b``, each behind `name`.

    Raises:
        TypeError: `weights` is not a list.
        ValueError: it holds more or less, or a shape or dtype does not belong there.
    """
    if not isinstance(weights, (list, tuple)):
        raise TypeError(f"weights must be a list, what layer.get_weights() returns; got {type(weights).__name__}")
    if len(weights) not in (2, 3):
        raise ValueError(f"weights must be [kernel, recurrent kernel] or also [bias], of one layer; got {len(weights)}")
    labels = ("kernel", "recurrent kernel", "bias")
    arrays = [_array(label, value) for label, value in zip(labels, weights, strict=False)]
    recurrent = arrays[1].shape
    C = recurrent[2] if len(recurrent) == 4 else 0
    if C < 1 or recurrent[3] != 4 * C:
        raise ValueError(f"'recurrent kernel' has shape {recurrent}; it must be (K, K, C, 4·C)")
    Cin = arrays[0].shape[2] if arrays[0].ndim == 4 else "Cin"
    _check_shape("kernel", arrays[0], (*recurrent[:2], Cin, 4 * C))
    ours = zip(("W_x", "W_h"), arrays[:2], strict=True)
    parameters = {name + key: np.array(array.transpose(3, 2, 0, 1), order="C") for key, array in ours}
    if len(arrays) == 3:
        _check_shape("bias", arrays[2], (4 * C,))
        parameters[name + "b"] = np.array(arrays[2])
    return parameters


def to_keras(parameters: Mapping[str, NDArray[Any]], name: str = "") -> list[NDArray[Any]]:
    """Return the list for ``layer.set_weights`` of a Keras 3 ``ConvLSTM2D`` from our parameters of one layer.

    Args:
        parameters: ours; NumPy arrays.
        name: of the layer, for example ``"layers.0."``; names that do not begin with it are left alone.

    Returns:
        NumPy arrays of their own: the kernel (K, K, Cin, 4C), the recurrent kernel (K, K, C, 4C) and, if there is
        one, the bias (4C,).

    Raises:
        TypeError: a parameter is not a NumPy array.
        ValueError: Keras has no place for a parameter: peepholes, layer norm, a bias per pixel, kernels over x and
            over h of different sizes; or its name or shape is not one of ours.
    """
    _check_arrays(parameters)
    layer = {key[len(name) :]: array for key, array in parameters.items() if key.startswith(name)}
    _present(layer, "W_x", name + "W_x", parameters)
    W_x, W_h, b = _checked_layer(layer, name, "Keras's ConvLSTM2D")
    kernels = [np.array(W.transpose(2, 3, 1, 0), order="C") for W in (W_x, W_h)]
    return kernels if b is None else [*kernels, np.array(b)]


# What is given --------------------------------------------------------------------------------------------------------


def _check_mapping(state_dict: Any) -> None:
    if not isinstance(state_dict, Mapping):
        raise TypeError(
            f"state_dict must be a mapping of names to tensors; got {type(state_dict).__name__}; a file is read by "
            "load_parameters, once safetensors.torch.save_file has written it: a .pt file is a pickle"
        )


def _array(key: str, value: Any) -> NDArray[Any]:
    """Return a tensor of PyTorch, or whatever else NumPy can read, as an array; it may share its memory."""
    dtype = str(getattr(value, "dtype", type(value).__name__)).removeprefix("torch.")
    if dtype not in FLOATS:
        raise ValueError(f"{key!r} has dtype {dtype}; it must be one of {', '.join(FLOATS)}")
    if hasattr(value, "detach"):  # a tensor: it may require a gradient or lie on a device
        value = value.detach().cpu().numpy()
    array: NDArray[Any] = np.asarray(value)
    return array


def _check_arrays(parameters: Mapping[str, Any]) -> None:
    for name, array in parameters.items():
        if not isinstance(array, np.ndarray):
            given = f"{type(array).__module__}.{type(array).__name__}"
            raise TypeError(f"parameter {name!r} must be a NumPy array; got {given}")


def _layers(parameters: Mapping[str, NDArray[Any]]) -> tuple[dict[int | None, Weights], Weights]:
    """Return the parameters of each layer of a stack by its number, of a layer that stands alone by None; the rest."""
    layers: dict[int | None, Weights] = {}
    rest: Weights = {}
    for name, array in parameters.items():
        match = STACKED.fullmatch(name)
        if match:
            layers.setdefault(int(match[1]), {})[match[2]] = array
        elif name.startswith("readout."):
            rest[name] = array
        else:
            layers.setdefault(None, {})[name] = array
    if None in layers and len(layers) > 1:
        raise ValueError(f"parameters must be of one layer or of a stack, not both; given are {_listed(parameters)}")
    for index in range(len(layers)) if None not in layers else ():
        if index not in layers:
            raise ValueError(f"parameter 'layers.{index}.W_x' is missing; given are {_listed(parameters)}")
    return layers or {None: {}}, rest


def _checked_layer(layer: Weights, name: str, where: str) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None]:
    """Return (W_x, W_h, b) of one layer of ours, or say what has no place in the layout called `where`."""
    for key in layer:
        if key not in ("W_x", "W_h", "b"):
            what = " (a peephole)" if key in ("p_i", "p_f", "p_o") else ""
            raise ValueError(f"parameter {name + key!r}{what} has no place in {where}; right are W_x, W_h, b")
    W_x, W_h = (_present(layer, key, name + key, layer) for key in ("W_x", "W_h"))
    _check_pair(name + "W_x", W_x, name + "W_h", W_h)
    b = layer.get("b")
    if b is not None and b.ndim == 3:
        raise ValueError(f"parameter {name + 'b'!r} of shape {b.shape} is per pixel, which has no place in {where}")
    if b is not None:
        _check_shape(name + "b", b, W_h.shape[:1])
    return W_x, W_h, b


def _check_pair(x: str, W_x: NDArray[Any], h: str, W_h: NDArray[Any], below: int | None = None) -> None:
    """Check that two kernels, called `x` and `h`, are one layer's: (4C, Cin, K, K) and (4C, C, K, K)."""
    C = W_h.shape[1] if W_h.ndim == 4 else 0
    if C < 1 or W_h.shape[0] != 4 * C:
        raise ValueError(f"{h!r} has shape {W_h.shape}; it must be (4·C, C, K, K)")
    Cin = below or (W_x.shape[1] if W_x.ndim == 4 else "Cin")
    _check_shape(x, W_x, (4 * C, Cin, *W_h.shape[2:]))
    if W_x.dtype != W_h.dtype:  # in one kernel they would become alike without a word
        raise ValueError(f"{x!r} has dtype {W_x.dtype} and {h!r} {W_h.dtype}; they must be the same")


def _readout_keys(readout: str | None) -> tuple[str, ...]:
    return () if readout is None else (f"{readout}.weight", f"{readout}.bias")


def _from_readout(state_dict: Mapping[str, Any], readout: str | None, C: int | None) -> Weights:
    """Return ``readout.W`` and ``readout.b`` from the 1×1 nn.Conv2d of this name, over C channels."""
    if readout is None:
        return {}
    weight, bias = _readout_keys(readout)
    W = _array(weight, _present(state_dict, weight, weight, state_dict))
    if W.ndim != 4 or W.shape[1:] != (C, 1, 1):
        raise ValueError(f"{weight!r} has shape {W.shape}; it must be (D, {C}, 1, 1)")
    b = _array(bias, state_dict.get(bias, np.zeros(len(W), W.dtype)))
    _check_shape(bias, b, W.shape[:1])
    return {"readout.W": np.array(W, order="C"), "readout.b": np.array(b)}


def _present(held: Mapping[str, Any], key: str, full_name: str, given: Iterable[str]) -> Any:
    if key not in held:
        raise ValueError(f"{full_name!r} is missing; given are {_listed(given)}")
    return held[key]


def _check_shape(key: str, array: NDArray[Any], right: tuple[int | str, ...]) -> None:
    if array.shape != right:
        sizes = ", ".join(map(str, right)) + ("," if len(right) == 1 else "")
        raise ValueError(f"{key!r} has shape {array.shape}; it must be ({sizes})")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
