"""The elementwise half of one ConvLSTM step as two CUDA kernels, a thread for each (pixel, channel).

The source is plain enough to be compiled as C++ for the host as well; the tests do so and hold it against NumPy where
there is no GPU.  Products, sums and differences are rounded one by one, as the lines say, and subnormal numbers stay:
see OPTIONS.  What is left to CUDA is `tanh`, whose largest error its programming guide gives as 2 ulp in float32 and
1 ulp in float64, over all arguments ("extensive but not exhaustive tests").  NumPy's has errors of its own, so the two
backends differ in last digits; one device model and one version of CUDA give the same bits on every run.

Memory is channels-last: pre-activations and gates (N, H, W, 4, C), states (N, H, W, C).  Parameters are read as they
are held, per channel (4C,) or (C,), per pixel (4C, H, W) or (C, H, W), so that no step has to turn them around.
"""

# No fused multiply-add, no flushing of subnormal numbers, quotients and roots rounded to nearest.  CuPy appends
# -ftz=true to what a `RawKernel` is given, and the last one counts; so cuda_kernels.py does not go through one.
OPTIONS = ("--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true", "--std=c++14")
THREADS_PER_BLOCK = 256

SOURCE = r"""
#ifndef REAL
#define REAL float
#endif

__device__ inline REAL sigmoid(REAL z) { return REAL(0.5) * tanh(REAL(0.5) * z) + REAL(0.5); }

extern "C" __global__ void gates_forward(
    long long size, long long pixels, int C,   // size = N*pixels*C; pixels = H*W of one map
    const REAL* z_x, const REAL* z_h,          // z_h is null where the state before is zero
    const REAL* bias, int bias_per_pixel,      // null without bias
    const REAL* p_i, const REAL* p_f, const REAL* p_o, int peephole_per_pixel,  // null without peepholes
    const REAL* c_previous,
    REAL* activations, REAL* tanh_c, REAL* c, REAL* h)
{
    const long long step = (long long)gridDim.x * blockDim.x;
    for (long long k = (long long)blockIdx.x * blockDim.x + threadIdx.x; k < size; k += step) {
        const long long row = k / C, channel = k % C, pixel = row % pixels;
        const long long first = row * 4 * C + channel;
        REAL z[4];
        for (int gate = 0; gate < 4; ++gate) {
            z[gate] = z_x[first + gate * C];
            if (z_h) z[gate] = z[gate] + z_h[first + gate * C];
            const long long b = gate * C + channel;
            if (bias) z[gate] = z[gate] + bias[bias_per_pixel ? b * pixels + pixel : b];
        }
        const long long p = peephole_per_pixel ? channel * pixels + pixel : channel;
        const REAL before = c_previous[k];
        if (p_i) z[0] = z[0] + p_i[p] * before;                    // z_i + p_i c-
        if (p_f) z[1] = z[1] + p_f[p] * before;                    // z_f + p_f c-
        const REAL i = sigmoid(z[0]), f = sigmoid(z[1]), g = tanh(z[2]);
        const REAL now = f * before + i * g;                       // c = f c- + i g
        if (p_o) z[3] = z[3] + p_o[p] * now;                       // z_o + p_o c
        const REAL o = sigmoid(z[3]), squashed = tanh(now);
        activations[first] = i;
        activations[first + C] = f;
        activations[first + 2 * C] = g;
        activations[first + 3 * C] = o;
        tanh_c[k] = squashed;
        c[k] = now;
        h[k] = o * squashed;                                       // h = o tanh(c)
    }
}

extern "C" __global__ void gates_backward(
    long long size, long long pixels, int C,
    const REAL* p_i, const REAL* p_f, const REAL* p_o, int peephole_per_pixel,
    const REAL* activations, const REAL* tanh_c, const REAL* c_previous,
    const REAL* dh, const REAL* dc,
    REAL* dz, REAL* dc_previous)
{
    const long long step = (long long)gridDim.x * blockDim.x;
    for (long long k = (long long)blockIdx.x * blockDim.x + threadIdx.x; k < size; k += step) {
        const long long row = k / C, channel = k % C;
        const long long first = row * 4 * C + channel;
        const long long p = peephole_per_pixel ? channel * pixels + row % pixels : channel;
        const REAL i = activations[first], f = activations[first + C];
        const REAL g = activations[first + 2 * C], o = activations[first + 3 * C];
        const REAL dz_o = dh[k] * tanh_c[k] * (o * (1 - o));              // h = o tanh(c), o = sigmoid(z_o)
        REAL d_c = dh[k] * o * (1 - tanh_c[k] * tanh_c[k]) + dc[k];       // h = o tanh(c); c goes on to the next step
        if (p_o) d_c = d_c + p_o[p] * dz_o;                               // z_o + p_o c
        const REAL dz_i = d_c * g * (i * (1 - i));                        // c = ... + i g, i = sigmoid(z_i)
        const REAL dz_f = d_c * c_previous[k] * (f * (1 - f));            // c = f c- + ..., f = sigmoid(z_f)
        const REAL dz_g = d_c * i * (1 - g * g);                          // c = ... + i g, g = tanh(z_g)
        d_c = d_c * f;                                                    // c = f c- + ...
        if (p_i) d_c = d_c + p_i[p] * dz_i;                               // z_i + p_i c-
        if (p_f) d_c = d_c + p_f[p] * dz_f;                               // z_f + p_f c-
        dz[first] = dz_i;
        dz[first + C] = dz_f;
        dz[first + 2 * C] = dz_g;
        dz[first + 3 * C] = dz_o;
        dc_previous[k] = d_c;
    }
}
"""
