"""What the functions and methods of array libraries do with an array they are given: read, look at, write."""

from __future__ import annotations

from convlstm.determinism.audit.words import words

LIBRARIES = ("numpy.", "cupy.", "cupyx.", "torch.")

# Attributes and functions that tell something of an array other than its elements.
ABOUT = words("shape dtype ndim size nbytes itemsize strides flags device is_cuda requires_grad names layout base")
VIEW_ATTRIBUTES = words("T mT flat H")
PART_ATTRIBUTES = words("real imag")
ABOUT_FUNCTIONS = words(
    "shape ndim size zeros_like ones_like full_like rand_like randn_like result_type can_cast "
    "iscomplexobj isrealobj may_share_memory shares_memory issubdtype iterable isscalar promote_types "
    "min_scalar_type common_type common_fill_value broadcast_shapes get_array_module is_tensor numel"
)
VIEW_FUNCTIONS = words(
    "asarray asanyarray ascontiguousarray asfortranarray reshape ravel transpose squeeze atleast_1d atleast_2d "
    "atleast_3d expand_dims swapaxes moveaxis rollaxis require from_numpy as_tensor array"
)
VIEW_METHODS = words(
    "reshape ravel transpose squeeze swapaxes view astype copy flatten to cuda cpu float double half "
    "contiguous detach clone requires_grad_ numpy get permute unsqueeze t type pin_memory newbyteorder"
)
ABOUT_METHODS = words("dim numel element_size is_contiguous get_device stride data_ptr setflags __len__")
READ_METHODS = words(
    "sum mean max min std var prod ptp argmax argmin argsort sort dot tolist all any cumsum cumprod round clip "
    "conj conjugate item tobytes nonzero trace repeat searchsorted norm matmul mm bmm exp log abs sqrt choose "
    "compress dump dumps tofile partition argpartition"
)
WRITE_METHODS = words("fill fill_ zero_ copy_ normal_ uniform_ random_ exponential_ bernoulli_ set")
WRITE_SOME_METHODS = words("put itemset masked_fill_ index_fill_ index_copy_ scatter_ masked_scatter_")
ACCUMULATE_METHODS = words(
    "add_ sub_ mul_ div_ addcmul_ addcdiv_ addmm_ index_add_ scatter_add_ scatter_add lerp_ pow_ exp_ clamp_"
)

ONE_ARGUMENT = words(
    "abs absolute arccos arccosh arcsin arcsinh arctan arctanh cbrt ceil conj conjugate cos cosh deg2rad "
    "degrees exp exp2 expm1 fabs floor invert isfinite isinf isnan log log10 log1p log2 logical_not negative "
    "positive rad2deg radians reciprocal rint sign signbit sin sinh spacing sqrt square tan tanh trunc"
)
TWO_ARGUMENTS = words(
    "add dot arctan2 bitwise_and bitwise_or bitwise_xor copysign divide equal floor_divide float_power fmax fmin "
    "fmod greater greater_equal heaviside hypot less less_equal logaddexp logaddexp2 logical_and logical_or "
    "logical_xor matmul maximum minimum mod multiply nextafter not_equal power remainder subtract true_divide"
)
REDUCTIONS = words(
    "all allclose amax amin any argmax argmin argsort argwhere around array_equal array_equiv average bincount "
    "choose clip column_stack concatenate convolve corrcoef correlate count_nonzero cov cross cumprod cumsum "
    "diag diff digitize einsum fft flatnonzero flip fliplr flipud gradient histogram hstack imag inner "
    "interp isclose isin kron max mean median min nanmax nanmean nanmin nanstd nansum nonzero outer pad "
    "percentile prod ptp quantile real repeat roll rot90 round save savetxt savez searchsorted sort stack std "
    "sum swapaxes take tensordot tile trace tril triu unique var vdot vstack array_str array_repr "
    "array2string norm inv det solve eig svd qr cat "
    ""
)
READ_FUNCTIONS = ONE_ARGUMENT | TWO_ARGUMENTS | REDUCTIONS
READ_BUILTINS = words("print float int complex str repr sum max min any all abs bool round format sorted")
ABOUT_BUILTINS = words("len isinstance issubclass type id callable hasattr")


def last(names: frozenset[str], libraries: tuple[str, ...] = LIBRARIES) -> str:
    """Return the function's own name, if all these names are one function of array libraries."""
    lasts = {name.rpartition(".")[2] for name in names}
    return lasts.pop() if len(lasts) == 1 and all(name.startswith(libraries) for name in names) else ""
