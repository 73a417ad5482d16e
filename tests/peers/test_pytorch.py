"""The real PyTorch and this project compute the same with the same weights, whichever of them had them first.

The modules have the names, shapes and order of gates of ndrplz/ConvLSTM_pytorch and of OpenSTL's ConvLSTM_Model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from convlstm import ConvLSTM, NextFrame, assign_parameters, load_parameters
from convlstm.foreign_weights import from_openstl, from_pytorch, to_pytorch

WHY = "compares with PyTorch, which is not installed: uv run --group peers pytest tests/peers"
torch: Any = pytest.importorskip("torch", reason=WHY)

Array = NDArray[Any]
HIDDEN = [(3,), (3, 2)]
KERNELS = [(1, 1), (3, 3), (3, 5)]


def assert_close(given: Array, right: Array) -> None:
    np.testing.assert_allclose(given, right, rtol=1e-12, atol=1e-12)


def ndrplz(
    hidden: tuple[int, ...], kernel: tuple[int, int], *, bias: bool = True, Cin: int = 2, pad: Any = None
) -> Any:
    """Return a stack in ndrplz's layout, under a 1×1 read-out named head: one nn.Conv2d over [x, h] for each cell."""
    pad = (kernel[0] // 2, kernel[1] // 2) if pad is None else pad
    cells = [
        torch.nn.ModuleDict({"conv": torch.nn.Conv2d(below + C, 4 * C, kernel, padding=pad, bias=bias)})
        for below, C in zip((Cin, *hidden), hidden, strict=False)
    ]
    head = torch.nn.Conv2d(hidden[-1], Cin, 1)
    return torch.nn.ModuleDict({"cell_list": torch.nn.ModuleList(cells), "head": head}).double()


def ndrplz_step(cell: Any, x: Any, h: Any, c: Any) -> tuple[Any, Any]:
    i, f, o, g = torch.chunk(cell["conv"](torch.cat([x, h], dim=1)), 4, dim=1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def openstl(hidden: tuple[int, ...], Cin: int = 1) -> Any:
    """Return a model in OpenSTL's layout: one nn.Conv2d over x and one over h for each cell, and two that it leaves."""

    def convolution(below: int, above: int, K: int = 3) -> Any:
        return torch.nn.Conv2d(below, above, K, padding=K // 2, bias=False)

    cells = [
        torch.nn.ModuleDict(
            {
                "conv_x": torch.nn.Sequential(convolution(below, 4 * C)),
                "conv_h": torch.nn.Sequential(convolution(C, 4 * C)),
                "conv_o": torch.nn.Sequential(convolution(2 * C, C)),
                "conv_last": convolution(2 * C, C, 1),
            }
        )
        for below, C in zip((Cin, *hidden), hidden, strict=False)
    ]
    last = convolution(hidden[-1], Cin, 1)
    return torch.nn.ModuleDict({"cell_list": torch.nn.ModuleList(cells), "conv_last": last}).double()


def openstl_step(cell: Any, x: Any, h: Any, c: Any) -> tuple[Any, Any]:
    i, f, g, o = torch.chunk(cell["conv_x"](x) + cell["conv_h"](h), 4, dim=1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def states_of(module: Any, x: Any, step: Any = ndrplz_step) -> tuple[list[Any], Any]:
    """Return the last layer's h at every step, and its last c."""
    xs = list(x.unbind(1))
    for cell in module["cell_list"]:
        C = next(cell.parameters()).shape[0] // 4
        h = c = torch.zeros(len(x), C, *x.shape[3:], dtype=x.dtype)
        hs = []
        for x_t in xs:
            h, c = step(cell, x_t, h, c)
            hs.append(h)
        xs = hs
    return xs, c


def forecast(module: Any, frames: Any, horizon: int, readout: str, step: Any) -> Array:
    """Predict by running the whole stack anew over all frames so far: slow, and with nothing to get wrong."""
    for _ in range(horizon):
        hs, _ = states_of(module, frames, step)
        frames = torch.cat([frames, module[readout](hs[-1])[:, None]], dim=1)
    predicted: Array = frames[:, -horizon:].detach().numpy()
    return predicted


def our_stack(
    parameters: dict[str, Array], hidden: tuple[int, ...], kernel: tuple[int, int], Cin: int = 2
) -> list[Any]:
    layers = []
    for index, (below, C) in enumerate(zip((Cin, *hidden), hidden, strict=False)):
        bias = "channel" if "layers.0.b" in parameters else None
        layer = ConvLSTM(below, C, kernel, bias=bias, dtype="float64", backend="numpy", name=f"layers.{index}.")  # type: ignore[arg-type]
        own = {name: parameters[layer.name + name] for name in layer.parameters}
        assign_parameters(layer.parameters, own)
        layers.append(layer)
    return layers


def frames(Cin: int = 2) -> Array:
    return np.random.default_rng(0).standard_normal((2, 4, Cin, 6, 7))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kernel", KERNELS, ids=str)
@pytest.mark.parametrize("hidden", HIDDEN, ids=str)
def test_weights_of_pytorch_make_the_same_states_here(
    hidden: tuple[int, ...], kernel: tuple[int, int], bias: bool
) -> None:
    torch.manual_seed(0)
    module = ndrplz(hidden, kernel, bias=bias)
    hs, c = states_of(module, torch.from_numpy(frames()))
    parameters = from_pytorch(module.state_dict(), readout="head")
    h = frames()
    for layer in our_stack(parameters, hidden, kernel):
        h, (_, c_T), _ = layer.forward(h)
    assert_close(h, torch.stack(hs, dim=1).detach().numpy())
    assert_close(c_T, c.detach().numpy())


@pytest.mark.parametrize("bias", ["channel", None])
@pytest.mark.parametrize("kernel", KERNELS, ids=str)
@pytest.mark.parametrize("hidden", HIDDEN, ids=str)
def test_weights_of_ours_make_the_same_forecast_in_pytorch(
    hidden: tuple[int, ...], kernel: tuple[int, int], bias: Any
) -> None:
    model = NextFrame(2, hidden, kernel, bias=bias, dtype="float64", backend="numpy", seed=3)
    module = ndrplz(hidden, kernel, bias=bias is not None)
    weights = to_pytorch(model.parameters, readout="head")
    module.load_state_dict({key: torch.from_numpy(weight) for key, weight in weights.items()})  # strict: all, no other
    expected = forecast(module, torch.from_numpy(frames()), 3, "head", ndrplz_step)
    assert_close(model.predict(frames(), 3), expected)


def test_one_cell_either_way() -> None:
    torch.manual_seed(0)
    module = ndrplz((3,), (3, 3))
    cell = module["cell_list"][0]
    (layer,) = our_stack(from_pytorch(module.state_dict(), readout="head"), (3,), (3, 3))
    for name, parameter in from_pytorch(cell.state_dict()).items():
        np.testing.assert_array_equal(parameter, layer.parameters[name])
    cell.load_state_dict({key: torch.from_numpy(w) for key, w in to_pytorch(layer.parameters).items()})


def test_gradients_of_pytorch_are_ours_in_its_layout() -> None:
    """A gradient has its parameter's layout, so it can be moved as weights are."""
    torch.manual_seed(0)
    module = ndrplz((3,), (3, 3))
    x = torch.tensor(frames(), requires_grad=True)
    hs, _ = states_of(module, x)
    u = np.random.default_rng(1).standard_normal((2, 4, 3, 6, 7))
    (torch.stack(hs, dim=1) * torch.from_numpy(u)).sum().backward()
    (layer,) = our_stack(from_pytorch(module.state_dict(), readout="head"), (3,), (3, 3))
    _, _, cache = layer.forward(frames())
    dx, _, gradients = layer.backward(cache, u)
    theirs = from_pytorch({name: p.grad for name, p in module["cell_list"][0].named_parameters()})
    assert_close(dx, x.grad.numpy())
    for name, gradient in gradients.items():
        assert_close(gradient, theirs[name])


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
def test_even_kernels_agree_where_pytorch_pads_the_same() -> None:
    """ndrplz's own padding, K // 2, makes maps grow by one where K is even, and its step then fails."""
    torch.manual_seed(0)
    module = ndrplz((3,), (2, 4), pad="same")
    hs, _ = states_of(module, torch.from_numpy(frames()))
    (layer,) = our_stack(from_pytorch(module.state_dict(), readout="head"), (3,), (2, 4))
    assert_close(layer.forward(frames())[0], torch.stack(hs, dim=1).detach().numpy())


def test_the_whole_way_through_a_file_of_pytorch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = ndrplz((3, 2), (3, 3))
    pytest.importorskip("safetensors.torch").save_file(module.state_dict(), tmp_path / "net.safetensors")
    model = NextFrame(2, (3, 2), 3, dtype="float64", backend="numpy")
    assign_parameters(model.parameters, from_pytorch(load_parameters(tmp_path / "net.safetensors"), readout="head"))
    expected = forecast(module, torch.from_numpy(frames()), 2, "head", ndrplz_step)
    assert_close(model.predict(frames(), 2), expected)


def test_parameters_that_require_a_gradient_are_taken_and_not_shared() -> None:
    module = ndrplz((3,), (3, 3))
    found = from_pytorch(dict(module.named_parameters()), readout="head")
    before = {name: array.copy() for name, array in found.items()}
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    for name, array in found.items():
        np.testing.assert_array_equal(array, before[name])


def test_half_precision_of_the_brain_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"'cell_list.0.conv.weight' has dtype bfloat16; it must be one of float16"):
        from_pytorch(ndrplz((3,), (3, 3)).bfloat16().state_dict(), readout="head")


@pytest.mark.parametrize("hidden", HIDDEN, ids=str)
def test_weights_of_openstl_make_the_same_forecast_here(hidden: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    module = openstl(hidden)
    model = NextFrame(1, hidden, 3, bias=None, readout_bias=False, dtype="float64", backend="numpy")
    assign_parameters(model.parameters, from_openstl(module.state_dict()))
    expected = forecast(module, torch.from_numpy(frames(1)), 3, "conv_last", openstl_step)
    assert_close(model.predict(frames(1), 3), expected)


def test_another_order_of_gates_is_seen() -> None:
    torch.manual_seed(0)
    module = ndrplz((3,), (3, 3))
    hs, _ = states_of(module, torch.from_numpy(frames()))
    parameters = from_pytorch(module.state_dict(), readout="head")
    for name in ("W_x", "W_h", "b"):
        i, f, g, o = np.split(parameters[f"layers.0.{name}"], 4)
        parameters[f"layers.0.{name}"] = np.concatenate([i, f, o, g])  # as they stand in PyTorch
    (layer,) = our_stack(parameters, (3,), (3, 3))
    assert np.abs(layer.forward(frames())[0] - torch.stack(hs, dim=1).detach().numpy()).max() > 1e-2
