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
READOUT = ("readout.W", "readout.b")
PICKLE = "; a file is read by load_parameters, once safetensors.torch.save_file has written it: a .pt file is a pickle"

# One spelling for each number: layers.0.W_x and layers.00.W_x would be two names of one parameter.
NUMBER = "(0|[1-9][0-9]*)"
STACKED = re.compile(rf"layers\.{NUMBER}\.(.+)")  # our name of a layer's parameter within a stack
NDRPLZ_CELL = re.compile(rf"(?P<cell>(cell_list\.{NUMBER}\.)?)conv\.(?P<part>weight|bias)")
OPENSTL_CELL = re.compile(rf"cell_list\.{NUMBER}\.conv_[xh]\.0\.weight")
# Every OpenSTL cell owns these two convolutions, and no line of its forward uses them.
OPENSTL_UNUSED = re.compile(rf"cell_list\.{NUMBER}\.(conv_o\.0|conv_last)\.weight")


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
        ``readout.W`` and, if it has a bias, ``readout.b``.

    Raises:
        TypeError: `state_dict` is not a mapping of names, or `prefix` or `readout` not a str.
        ValueError: a name, shape or dtype does not belong there; the message names it and what is right.
    """
    _check_mapping("state_dict", state_dict, PICKLE)
    _check_texts(prefix=prefix, readout=readout or "")
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
        cells.setdefault(match["cell"], {})[match["part"]] = _array(key, tensor)
    if not cells:
        raise ValueError(
            f"no name begins with '{prefix}cell_list.' or '{prefix}conv.'; given are {_listed(state_dict)}"
        )
    parameters: Weights = {}
    below = 0  # channels of the layer below; 0 where there is none
    for cell, name in _in_order(cells, prefix):
        W_x, W_h = _split_kernel(prefix + cell + "conv.weight", cells[cell].get("weight"), below)
        _check_alike({f"{prefix}{cell}conv.{part}": array for part, array in cells[cell].items()})
        parameters |= {name + "W_x": W_x, name + "W_h": W_h}
        bias = cells[cell].get("bias")
        if bias is not None:
            _check_shape(prefix + cell + "conv.bias", bias, W_h.shape[:1])
            parameters[name + "b"] = _swap_g_and_o(bias)
        below = W_h.shape[1]
    if readout is None:
        return parameters
    return parameters | _renamed_readout(state_dict, _readout_keys(readout), READOUT, below)


def to_pytorch(parameters: Mapping[str, NDArray[Any]], prefix: str = "", readout: str | None = None) -> Weights:
    """Return the weights of ndrplz's layout from ours; undoes `from_pytorch` with the same prefix and read-out.

    Args:
        parameters: of a stack, ``layers.0.W_x`` and so on, or of one layer, ``W_x``, ``W_h``, ``b``; NumPy arrays.
        prefix: to stand before the names, see `from_pytorch`.
        readout: the full name to give to ``readout.W`` and, if there is one, ``readout.b`` as an ``nn.Conv2d``, for
            example ``"head"``.

    Returns:
        NumPy arrays of their own, for ``module.load_state_dict({k: torch.from_numpy(v) for k, v in ….items()})``.

    Raises:
        TypeError: `parameters` is not a mapping of names, a parameter not a NumPy array, `prefix` or `readout` no str.
        ValueError: the layout has no place for a parameter: peepholes, layer norm, a bias per pixel, kernels over x and
            over h of different sizes, a read-out without a name; or its name, shape or dtype is not one of ours.
    """
    _check_mapping("parameters", parameters)
    _check_arrays(parameters)
    _check_texts(prefix=prefix, readout=readout or "")
    layers, rest = _layers(parameters)
    weights: Weights = {}
    below = 0  # channels of the layer below; 0 where there is none
    for index, layer in layers.items():
        ours, cell = ("", prefix) if index is None else (f"layers.{index}.", f"{prefix}cell_list.{index}.")
        W_x, W_h, b = _checked_layer(layer, ours, "ndrplz's layout", below)
        weights[cell + "conv.weight"] = _swap_g_and_o(np.concatenate((W_x, W_h), axis=1))
        if b is not None:
            weights[cell + "conv.bias"] = _swap_g_and_o(b)
        below = W_h.shape[1]
    for name in rest:
        if readout is None or name not in READOUT:
            raise ValueError(
                f"parameter {name!r} has no place in ndrplz's layout; a 1×1 nn.Conv2d of the larger module takes the "
                'read-out, readout.W and readout.b: name it, for example readout="head"'
            )
    if readout is None:
        return weights
    head = _renamed_readout(parameters, READOUT, _readout_keys(readout), below)
    for key in head.keys() & weights.keys():
        raise ValueError(f"readout={readout!r} must not be the name of a cell's convolution, which {key!r} is")
    return weights | head


def _in_order(cells: Mapping[str, Weights], prefix: str) -> list[tuple[str, str]]:
    """Return (PyTorch's name, ours) of each cell, first to last."""
    if set(cells) == {""}:
        return [("", "")]
    if "" in cells:
        given = _listed(prefix + name for name in cells if name)
        raise ValueError(f"'{prefix}conv.' is one cell's and {given} of a stack: state_dict must hold one or the other")
    right = [(f"cell_list.{index}.", f"layers.{index}.") for index in range(len(cells))]
    for cell, _ in right:
        if cell not in cells:
            given = _listed(prefix + name for name in cells)
            raise ValueError(f"{prefix + cell + 'conv.weight'!r} is missing: cells count from 0; given are {given}")
    return right


def _split_kernel(key: str, weight: NDArray[Any] | None, below: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return (W_x, W_h) of the one kernel over [x, h], above a layer of `below` channels; 0 where there is none."""
    if weight is None:
        raise ValueError(f"{key!r} is missing, though its bias is there")
    C = weight.shape[0] // 4 if weight.ndim == 4 else 0
    Cin = weight.shape[1] - C if C else 0
    if Cin < 1 or weight.shape[0] != 4 * C or 0 in weight.shape:
        raise _wrong_shape(key, weight, ("4·C", "Cin + C", "K", "K"))
    _check_fits_below(key, weight, Cin, below)
    kernel = _swap_g_and_o(weight)
    return np.array(kernel[:, :Cin], order="C"), np.array(kernel[:, Cin:], order="C")


def _swap_g_and_o(gates: NDArray[Any]) -> NDArray[Any]:
    """Return i, f, o, g from i, f, g, o along the first axis, and the other way round; always a copy."""
    half, quarter = len(gates) // 2, len(gates) // 4
    return np.concatenate((gates[:half], gates[half + quarter :], gates[half : half + quarter]))


# PyTorch, OpenSTL's layout --------------------------------------------------------------------------------------------


def from_openstl(state_dict: Mapping[str, Any], prefix: str = "") -> Weights:
    """Return parameters of ``NextFrame(bias=None, readout_bias=False, …)`` from OpenSTL's ``ConvLSTM_Model``.

    Args:
        state_dict: tensors or arrays by name: ``cell_list.0.conv_x.0.weight`` (4C, Cin, K, K),
            ``cell_list.0.conv_h.0.weight`` (4C, C, K, K), and so on, ``conv_last.weight`` (D, C, 1, 1). What every
            cell owns and never uses, ``conv_o`` and a ``conv_last`` of its own, is left alone.
        prefix: what stands before these names, for example ``"module."`` or ``"model."``, with which wrappers save
            them. Names that do not begin with it are left alone.

    Returns:
        NumPy arrays of their own: ``layers.0.W_x``, ``layers.0.W_h``, …, ``readout.W``; also ``readout.b`` if there is
        a ``conv_last.bias``, which OpenSTL has not.

    Raises:
        TypeError: `state_dict` is not a mapping of names, or `prefix` not a str.
        ValueError: a name, shape or dtype does not belong there, those of layer normalisation among them: OpenSTL
            normalises the two convolutions apart, our layers their sum.
    """
    _check_mapping("state_dict", state_dict, PICKLE)
    _check_texts(prefix=prefix)
    last = _readout_keys(prefix + "conv_last")
    cells: set[int] = set()
    for key in state_dict:
        if not key.startswith(prefix) or key in last or OPENSTL_UNUSED.fullmatch(key[len(prefix) :]):
            continue
        match = OPENSTL_CELL.fullmatch(key[len(prefix) :])
        if match is None:
            hint = ": it normalises x and h apart, our layers their sum" if re.search(r"conv_.\.1\.", key) else ""
            raise ValueError(f"{key!r} has no place in OpenSTL's ConvLSTM_Model without layer normalisation{hint}")
        cells.add(int(match[1]))
    parameters: Weights = {}
    below = 0  # channels of the layer below; 0 where there is none
    for index in range(max(len(cells), 1)):
        x, h = (f"{prefix}cell_list.{index}.conv_{part}.0.weight" for part in "xh")
        W_x, W_h = (np.array(_array(key, _present(key, state_dict)), order="C") for key in (x, h))
        _check_pair(x, W_x, h, W_h, below)
        _check_alike({x: W_x, h: W_h})
        parameters |= {f"layers.{index}.W_x": W_x, f"layers.{index}.W_h": W_h}
        below = W_h.shape[1]
    return parameters | _renamed_readout(state_dict, last, READOUT, below)


# Keras ----------------------------------------------------------------------------------------------------------------


def from_keras(weights: Sequence[Any], name: str = "") -> Weights:
    """Return the parameters of one layer from ``layer.get_weights()`` of a Keras 3 ``ConvLSTM2D``.

    Args:
        weights: the kernel (K, K, Cin, 4C), the recurrent kernel (K, K, C, 4C) and, with ``use_bias``, the bias (4C,).
        name: of our layer, to stand before the names, for example ``"layers.0."``.

    Returns:
        NumPy arrays of their own, ``W_x``, ``W_h`` and, if there is a bias, ``b``, each behind `name`.

    Raises:
        TypeError: `weights` is not a list, or `name` not a str.
        ValueError: it holds more or less, or a shape or dtype does not belong there.
    """
    if not isinstance(weights, (list, tuple)):
        raise TypeError(f"weights must be a list, what layer.get_weights() returns; got {type(weights).__name__}")
    if len(weights) not in (2, 3):
        raise ValueError(f"weights must be [kernel, recurrent kernel] or also [bias], of one layer; got {len(weights)}")
    _check_texts(name=name)
    labels = ("kernel", "recurrent kernel", "bias")
    arrays = {label: _array(label, value) for label, value in zip(labels, weights, strict=False)}
    kernel, recurrent = arrays["kernel"], arrays["recurrent kernel"]
    C = recurrent.shape[2] if recurrent.ndim == 4 else 0
    if recurrent.shape[3:] != (4 * C,) or 0 in recurrent.shape:
        raise _wrong_shape("recurrent kernel", recurrent, ("K", "K", "C", "4·C"))
    _check_shape("kernel", kernel, (*recurrent.shape[:2], "Cin", 4 * C))
    ours = {"W_x": kernel.transpose(3, 2, 0, 1), "W_h": recurrent.transpose(3, 2, 0, 1)}
    if "bias" in arrays:
        _check_shape("bias", arrays["bias"], (4 * C,))
        ours["b"] = arrays["bias"]
    _check_alike(arrays)
    return {name + key: np.array(array, order="C") for key, array in ours.items()}


def to_keras(parameters: Mapping[str, NDArray[Any]], name: str = "") -> list[NDArray[Any]]:
    """Return the list for ``layer.set_weights`` of a Keras 3 ``ConvLSTM2D`` from our parameters of one layer.

    Args:
        parameters: ours; NumPy arrays.
        name: of the layer, for example ``"layers.0."``; names that do not begin with it are left alone.

    Returns:
        NumPy arrays of their own: the kernel (K, K, Cin, 4C), the recurrent kernel (K, K, C, 4C) and, if there is
        one, the bias (4C,).

    Raises:
        TypeError: `parameters` is not a mapping of names, a parameter of the layer not a NumPy array, `name` not a str.
        ValueError: Keras has no place for a parameter: peepholes, layer norm, a bias per pixel, kernels over x and
            over h of different sizes; or its name, shape or dtype is not one of ours.
    """
    _check_mapping("parameters", parameters)
    _check_texts(name=name)
    _present(name + "W_x", parameters)
    layer = {key: array for key, array in parameters.items() if key.startswith(name)}
    _check_arrays(layer)
    own = {key[len(name) :]: array for key, array in layer.items()}
    W_x, W_h, b = _checked_layer(own, name, "Keras's ConvLSTM2D")
    kernels = [np.array(W.transpose(2, 3, 1, 0), order="C") for W in (W_x, W_h)]
    return kernels if b is None else [*kernels, np.array(b)]


# What is given --------------------------------------------------------------------------------------------------------


def _check_mapping(what: str, given: Any, hint: str = "") -> None:
    if not isinstance(given, Mapping):
        raise TypeError(f"{what} must be a mapping of names to arrays; got {type(given).__name__}{hint}")
    for name in given:
        if not isinstance(name, str):
            raise TypeError(
                f"{what} must be a mapping of names to arrays; {name!r} is no name, but {type(name).__name__}"
            )


def _check_texts(**texts: Any) -> None:
    for name, text in texts.items():
        if not isinstance(text, str):
            raise TypeError(f"{name} must be a str; got {text!r}")


def _array(key: str, value: Any) -> NDArray[Any]:
    """Return a tensor of PyTorch, or whatever else NumPy can read, as an array; it may share its memory."""
    dtype = str(getattr(value, "dtype", type(value).__name__)).removeprefix("torch.")
    _check_dtype(key, dtype)
    if hasattr(value, "detach"):  # a tensor: it may require a gradient or lie on a device
        value = value.detach().cpu().numpy()
    array: NDArray[Any] = np.asarray(value)
    return array


def _check_arrays(parameters: Mapping[str, Any]) -> None:
    for name, array in parameters.items():
        if not isinstance(array, np.ndarray):
            given = f"{type(array).__module__}.{type(array).__name__}"
            raise TypeError(f"parameter {name!r} must be a NumPy array; got {given}")
        _check_dtype(name, str(array.dtype))


def _check_dtype(key: str, dtype: str) -> None:
    if dtype not in FLOATS:
        raise ValueError(f"{key!r} has dtype {dtype}; it must be one of {', '.join(FLOATS)}")


def _check_alike(arrays: Weights) -> None:
    """Check that one convolution's or one layer's arrays have one dtype: joined, they would become alike in silence."""
    (first, one), *others = arrays.items()
    for key, array in others:
        if array.dtype != one.dtype:
            raise ValueError(f"{first!r} has dtype {one.dtype} and {key!r} {array.dtype}; they must be the same")


def _layers(parameters: Mapping[str, NDArray[Any]]) -> tuple[dict[int | None, Weights], Weights]:
    """Return the layers by number, first to last, or by None the one that stands alone; and the rest."""
    layers: dict[int | None, Weights] = {}
    rest: Weights = {}
    for name, array in parameters.items():
        match = STACKED.fullmatch(name)
        if match:
            layers.setdefault(int(match[1]), {})[match[2]] = array
        elif name.startswith("layers."):
            raise ValueError(f"parameter {name!r} has no place in a stack; right are layers.0.W_x, layers.1.W_x, …")
        elif name.startswith("readout."):
            rest[name] = array
        else:
            layers.setdefault(None, {})[name] = array
    if None in layers and len(layers) > 1:
        raise ValueError(f"parameters must be of one layer or of a stack, not both; given are {_listed(parameters)}")
    if None in layers or not layers:
        return layers or {None: {}}, rest
    for index in range(len(layers)):
        if index not in layers:
            raise ValueError(f"parameter 'layers.{index}.W_x' is missing; given are {_listed(parameters)}")
    return {index: layers[index] for index in range(len(layers))}, rest


def _checked_layer(
    layer: Weights, name: str, where: str, below: int = 0
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None]:
    """Return (W_x, W_h, b) of one layer of ours, or say what has no place in the layout called `where`."""
    for key in layer:
        if key not in ("W_x", "W_h", "b"):
            what = " (a peephole)" if key in ("p_i", "p_f", "p_o") else ""
            raise ValueError(f"parameter {name + key!r}{what} has no place in {where}; right are W_x, W_h, b")
    named = {name + key: array for key, array in layer.items()}
    W_x, W_h = (_present(name + key, named) for key in ("W_x", "W_h"))
    _check_pair(name + "W_x", W_x, name + "W_h", W_h, below)
    b = layer.get("b")
    if b is not None and b.ndim == 3:
        raise ValueError(f"parameter {name + 'b'!r} of shape {b.shape} is per pixel, which has no place in {where}")
    if b is not None:
        _check_shape(name + "b", b, W_h.shape[:1])
    _check_alike(named)
    return W_x, W_h, b


def _check_pair(x: str, W_x: NDArray[Any], h: str, W_h: NDArray[Any], below: int) -> None:
    """Check that two kernels, called `x` and `h`, are one layer's: (4C, Cin, K, K) and (4C, C, K, K)."""
    C = W_h.shape[1] if W_h.ndim == 4 else 0
    if W_h.shape[:1] != (4 * C,) or 0 in W_h.shape:
        raise _wrong_shape(h, W_h, ("4·C", "C", "K", "K"))
    _check_shape(x, W_x, (4 * C, "Cin", *W_h.shape[2:]))
    _check_fits_below(x, W_x, W_x.shape[1], below)


def _check_fits_below(key: str, kernel: NDArray[Any], Cin: int, below: int) -> None:
    """Check that a kernel over Cin channels of x reads as many as the layer below has; 0 where there is none."""
    if below not in (0, Cin):
        raise ValueError(f"{key!r} of shape {kernel.shape} reads {Cin} channels; the layer below has {below}")


def _readout_keys(readout: str | None) -> tuple[str, ...]:
    return () if readout is None else (f"{readout}.weight", f"{readout}.bias")


def _renamed_readout(held: Mapping[str, Any], given: Sequence[str], wanted: Sequence[str], C: int) -> Weights:
    """Return weight and, if there, bias of a 1×1 convolution over C channels, renamed from `given` to `wanted`."""
    weight, bias = given
    _present(weight, held)
    arrays = {key: _array(key, held[key]) for key in given if key in held}
    _check_shape(weight, arrays[weight], ("D", C, 1, 1))
    if bias in arrays:
        _check_shape(bias, arrays[bias], arrays[weight].shape[:1])
    _check_alike(arrays)
    return {new: np.array(arrays[key], order="C") for key, new in zip(given, wanted, strict=True) if key in arrays}


def _present(key: str, given: Mapping[str, Any]) -> Any:
    if key not in given:
        raise ValueError(f"{key!r} is missing; given are {_listed(given)}")
    return given[key]


def _check_shape(key: str, array: NDArray[Any], right: tuple[int | str, ...]) -> None:
    """Check a shape in which a word, for example "Cin", stands for any size but 0."""
    sizes = zip(array.shape, right, strict=False)
    if array.ndim != len(right) or any(size != want if isinstance(want, int) else size == 0 for size, want in sizes):
        raise _wrong_shape(key, array, right)


def _wrong_shape(key: str, array: NDArray[Any], right: tuple[int | str, ...]) -> ValueError:
    sizes = ", ".join(map(str, right)) + ("," if len(right) == 1 else "")
    zero = ", no size 0" if 0 in array.shape else ""
    return ValueError(f"{key!r} has shape {array.shape}; it must be ({sizes}){zero}")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
