// Token maps and caches: rows of some hundred values that are fetched, mixed or put in place as a whole.
//
// Rows are worked on in fours (16 bytes of float32, 8 of half) or in 16 bytes, by neighbouring threads, so every access
// of a warp is one run of memory; which row, is the same for all threads of a block or a question of index arithmetic,
// never a branch.
#include "numbers.cuh"

// Where a fetched row comes from, clamped to the grid; NaN goes to 0.
struct Position {
    float row, col;
    bool inside;
};

__device__ inline Position position_of(const float *source, int i, int rows, int cols) {
    const float row = source[2 * i], col = source[2 * i + 1];
    const float in_row = fminf(fmaxf(row, 0.0f), rows - 1.0f), in_col = fminf(fmaxf(col, 0.0f), cols - 1.0f);
    return {in_row, in_col, row == in_row && col == in_col};
}

// A block a fetched token; 32 to 256 threads, four values each: 192 values are 48 threads of 64, 1152 are two rounds.
template <class T>
__device__ void warp_bilinear(const T *values, int rows, int cols, int dim, const float *source, T *out, u8 *valid) {
    const int i = blockIdx.x;
    const Position at = position_of(source, i, rows, cols);
    const int top = static_cast<int>(at.row), left = static_cast<int>(at.col);
    const int down = min(top + 1, rows - 1), right = min(left + 1, cols - 1);
    const float fall = at.row - top, lean = at.col - left;
    const T *rows_of[2][2] = {{values + static_cast<size_t>(top * cols + left) * dim,
                               values + static_cast<size_t>(top * cols + right) * dim},
                              {values + static_cast<size_t>(down * cols + left) * dim,
                               values + static_cast<size_t>(down * cols + right) * dim}};
    for (int d = 4 * threadIdx.x; d < dim; d += 4 * blockDim.x) {
        const float4 above = mix(load4(rows_of[0][0] + d), load4(rows_of[0][1] + d), lean);
        const float4 below = mix(load4(rows_of[1][0] + d), load4(rows_of[1][1] + d), lean);
        store4(out + static_cast<size_t>(i) * dim + d, mix(above, below, fall));
    }
    if (valid && threadIdx.x == 0) valid[i] = at.inside;
}

template <class T>
__device__ void warp_nearest(const T *values, int rows, int cols, int dim, const float *source, T *out, u8 *valid) {
    const int i = blockIdx.x;
    const Position at = position_of(source, i, rows, cols);
    const int slot = static_cast<int>(rintf(at.row)) * cols + static_cast<int>(rintf(at.col));
    for (int d = 4 * threadIdx.x; d < dim; d += 4 * blockDim.x)
        store4(out + static_cast<size_t>(i) * dim + d, load4(values + static_cast<size_t>(slot) * dim + d));
    if (valid && threadIdx.x == 0) valid[i] = at.inside;
}

#define WARP(NAME, HOW, T)                                                                                            \
    extern "C" __global__ void __launch_bounds__(256)                                                                 \
        NAME(const T *__restrict__ values, int rows, int cols, int dim, const float *__restrict__ source,             \
             T *__restrict__ out, u8 *__restrict__ valid) {                                                           \
        HOW(values, rows, cols, dim, source, out, valid);                                                             \
    }
WARP(warp_bilinear_f32, warp_bilinear, float)
WARP(warp_nearest_f32, warp_nearest, float)
WARP(warp_nearest_f16, warp_nearest, __half)

// A block a token, so its share is one broadcast; threads as above.
extern "C" __global__ void __launch_bounds__(256)
    blend(float *__restrict__ accumulated, const float *__restrict__ fresh, const float *__restrict__ alpha, int dim) {
    const size_t row = static_cast<size_t>(blockIdx.x) * dim;
    const float kept = alpha[blockIdx.x];
    for (int d = 4 * threadIdx.x; d < dim; d += 4 * blockDim.x) {
        const float4 old = load4(accumulated + row + d), now = load4(fresh + row + d);
        store4(accumulated + row + d,
               make_float4(now.x + (old.x - now.x) * kept, now.y + (old.y - now.y) * kept,
                           now.z + (old.z - now.z) * kept, now.w + (old.w - now.w) * kept));
    }
}

// A thread a unit, 256 of them a block; y of the grid counts planes. A head of 64 halves is 8 units of 16 bytes: a warp
// moves four rows. Not __restrict__: rows may move within one cache.
template <class Unit>
__device__ void scatter_rows(const Unit *fresh, Unit *cache, const int *index, const int *source, int n, int fresh_rows,
                             int cache_rows, int units) {
    const int i = blockIdx.x * 256 + threadIdx.x, j = i / units, unit = i - j * units;
    if (j >= n) return;
    const size_t plane = blockIdx.y, from = source ? source[j] : j;
    cache[(plane * cache_rows + index[j]) * units + unit] = fresh[(plane * fresh_rows + from) * units + unit];
}

#define SCATTER(NAME, UNIT)                                                                                           \
    extern "C" __global__ void __launch_bounds__(256)                                                                 \
        NAME(const UNIT *fresh, UNIT *cache, const int *__restrict__ index, const int *__restrict__ source, int n,    \
             int fresh_rows, int cache_rows, int units) {                                                             \
        scatter_rows(fresh, cache, index, source, n, fresh_rows, cache_rows, units);                                  \
    }
SCATTER(scatter_rows_16, uint4)
SCATTER(scatter_rows_4, unsigned)
SCATTER(scatter_rows_1, u8)
