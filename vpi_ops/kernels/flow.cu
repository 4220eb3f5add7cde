// Dense flow: consistency of both directions, motion over several frames.
//
// 32×8 threads a block, a vector each: a warp reads and writes 256 neighbouring bytes. What flow leads to is gathered;
// neighbours move nearly alike, so that gathers stay within few lines of cache.
#include "numbers.cuh"

// One of four neighbours, with its weight; 0 outside the field.
__device__ inline float2 tap(const float2 *field, int width, int height, int x, int y, float weight) {
    const bool inside = x >= 0 && x < width && y >= 0 && y < height;
    const float2 v = inside ? field[static_cast<size_t>(y) * width + x] : make_float2(0, 0);
    return make_float2(weight * v.x, weight * v.y);
}

__device__ inline float2 interpolated(const float2 *field, int width, int height, float x, float y) {
    const float left = floorf(x), top = floorf(y), lean = x - left, fall = y - top;
    const int i = static_cast<int>(left), j = static_cast<int>(top);
    const float2 a = tap(field, width, height, i, j, (1 - lean) * (1 - fall));
    const float2 b = tap(field, width, height, i + 1, j, lean * (1 - fall));
    const float2 c = tap(field, width, height, i, j + 1, (1 - lean) * fall);
    const float2 d = tap(field, width, height, i + 1, j + 1, lean * fall);
    return make_float2(a.x + b.x + c.x + d.x, a.y + b.y + c.y + d.y);
}

extern "C" __global__ void __launch_bounds__(256)
    consistency(const float2 *__restrict__ backward, const float2 *__restrict__ forward, int width, int height,
                float cell_x, float cell_y, float *__restrict__ out) {
    const int x = blockIdx.x * 32 + threadIdx.x, y = blockIdx.y * 8 + threadIdx.y;
    if (x >= width || y >= height) return;
    const size_t here = static_cast<size_t>(y) * width + x;
    const float2 back = backward[here];
    const float at_x = x + back.x / cell_x, at_y = y + back.y / cell_y;
    const bool seen = at_x > -1 && at_x < width && at_y > -1 && at_y < height;  // false of NaN, too
    const float2 forth = seen ? interpolated(forward, width, height, at_x, at_y) : make_float2(0, 0);
    out[here] = hypotf(back.x + forth.x, back.y + forth.y);
}

extern "C" __global__ void __launch_bounds__(256)
    compose(const float2 *__restrict__ flow, const float2 *__restrict__ before, int width, int height, float cell_x,
            float cell_y, int clamp, float2 *__restrict__ out) {
    const int x = blockIdx.x * 32 + threadIdx.x, y = blockIdx.y * 8 + threadIdx.y;
    if (x >= width || y >= height) return;
    const size_t here = static_cast<size_t>(y) * width + x;
    const float2 v = flow[here];
    const float at_x = x + v.x / cell_x, at_y = y + v.y / cell_y;
    const float in_x = fminf(fmaxf(at_x, 0.0f), width - 1.0f), in_y = fminf(fmaxf(at_y, 0.0f), height - 1.0f);
    const bool inside = at_x == in_x && at_y == in_y;  // false of NaN, too
    const float2 there = interpolated(before, width, height, in_x, in_y);
    const float unknown = __uint_as_float(0x7fc00000u);
    out[here] = inside || clamp ? make_float2(v.x + there.x, v.y + there.y) : make_float2(unknown, unknown);
}
