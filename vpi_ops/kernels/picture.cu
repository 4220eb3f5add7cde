// From the camera's RGB8 frame to what is worked on: model picture, normalised patches, grey image.
//
// Resizing is a weighted sum per axis (vpi_ops/kernels/resampling.py): any chain of linear steps, crop and letterbox in
// one pass, nothing in between stored. Neighbouring threads make neighbouring pixels, so a warp reads a run of each
// source row and writes 96 neighbouring bytes; the taps of neighbours overlap and come from L1. A thread's taps are
// neighbours too, three bytes a pixel at any alignment: they are read in whole words, four pixels in three, which is a
// third of the loads. Only where a letterbox begins do threads of a warp part.
#include "numbers.cuh"

#define SAMPLED                                                                                                       \
    const u8 *__restrict__ frame, int pitch, int x0, int y0, const int *__restrict__ tables, int taps_x, int taps_y, \
        int width, int height, int padding
#define SAMPLED_ARGUMENTS frame, pitch, x0, y0, tables, taps_x, taps_y, width, height, padding

__device__ inline float byte_of(unsigned word, int which) { return static_cast<float>(word >> 8 * which & 255u); }

// One pixel of the picture, 8 bits a channel, red lowest. Rows of weights_x are filled up with zeros to fours.
__device__ inline unsigned sample(SAMPLED, int x, int y) {
    const float *weights_x = reinterpret_cast<const float *>(tables + width + height);
    const float *weights_y = weights_x + (taps_x + 3) / 4 * 4 * width;
    const int left = tables[x], top = tables[width + y];
    if (left < 0 || top < 0) return padding;
    const u8 *corner = frame + static_cast<size_t>(y0 + top) * pitch + 3 * (x0 + left);
    float red = 0.5f, green = 0.5f, blue = 0.5f;
    for (int i = 0; i < taps_x; i += 4) {
        const float a = weights_x[i * width + x], b = weights_x[(i + 1) * width + x];
        const float c = weights_x[(i + 2) * width + x], d = weights_x[(i + 3) * width + x];
        const u8 *first = corner + 3 * i;
        for (int j = 0; j < taps_y; ++j, first += pitch) {
            const size_t at = reinterpret_cast<size_t>(first);
            const unsigned *words = reinterpret_cast<const unsigned *>(at & ~static_cast<size_t>(3));
            const int past = at & 3, last = (past + 3 * min(taps_x - i, 4) - 1) / 4;  // no word without a wanted byte
            const unsigned w0 = words[0], w1 = words[min(1, last)], w2 = words[min(2, last)], w3 = words[min(3, last)];
            const unsigned p = __funnelshift_r(w0, w1, 8 * past), q = __funnelshift_r(w1, w2, 8 * past);
            const unsigned r = __funnelshift_r(w2, w3, 8 * past);
            const float down = weights_y[j * height + y];
            red += down * (a * byte_of(p, 0) + b * byte_of(p, 3) + c * byte_of(q, 2) + d * byte_of(r, 1));
            green += down * (a * byte_of(p, 1) + b * byte_of(q, 0) + c * byte_of(q, 3) + d * byte_of(r, 2));
            blue += down * (a * byte_of(p, 2) + b * byte_of(q, 1) + c * byte_of(r, 0) + d * byte_of(r, 3));
        }
    }
    // Weights are not negative and sum to 1, but for rounding in the last bit.
    const unsigned r = min(static_cast<int>(red), 255), g = min(static_cast<int>(green), 255);
    return r | g << 8 | static_cast<unsigned>(min(static_cast<int>(blue), 255)) << 16;
}

__device__ inline int red_of(unsigned rgb) { return rgb & 255; }
__device__ inline int green_of(unsigned rgb) { return rgb >> 8 & 255; }
__device__ inline int blue_of(unsigned rgb) { return rgb >> 16 & 255; }

// In 15 bits, as OpenCV weighs them.
__device__ inline int grey_of(int red, int green, int blue) {
    return (9798 * red + 19235 * green + 3735 * blue + 16384) >> 15;
}

// 32×8 threads, a pixel each: a warp lies in one row, so the weights of y are one broadcast; 8 rows share taps in L1.
extern "C" __global__ void __launch_bounds__(256) picture(SAMPLED, u8 *__restrict__ out) {
    const int x = blockIdx.x * 32 + threadIdx.x, y = blockIdx.y * 8 + threadIdx.y;
    if (x >= width || y >= height) return;
    const unsigned rgb = sample(SAMPLED_ARGUMENTS, x, y);
    u8 *to = out + 3 * (static_cast<size_t>(y) * width + x);
    to[0] = red_of(rgb);
    to[1] = green_of(rgb);
    to[2] = blue_of(rgb);
}

// Shape as above.
extern "C" __global__ void __launch_bounds__(256) grey(SAMPLED, u8 *__restrict__ out, int out_pitch) {
    const int x = blockIdx.x * 32 + threadIdx.x, y = blockIdx.y * 8 + threadIdx.y;
    if (x >= width || y >= height) return;
    const unsigned rgb = sample(SAMPLED_ARGUMENTS, x, y);
    out[static_cast<size_t>(y) * out_pitch + x] = grey_of(red_of(rgb), green_of(rgb), blue_of(rgb));
}

// A block a patch: whether it is fine, coarse or filling is the same for all its threads, and each of the three planes
// that it writes is one run. 256 threads are 1.3 pixels each at patch 14, one at 16, four at 32.
template <class T>
__device__ void patches(SAMPLED, const int *slots, int fine, int patch, int cols, float scale_r, float scale_g,
                        float scale_b, float shift_r, float shift_g, float shift_b, T *out) {
    const int slot = slots[blockIdx.x], area = patch * patch;
    T *to = out + static_cast<size_t>(blockIdx.x) * 3 * area;
    if (slot < 0) {
        for (int i = threadIdx.x; i < 3 * area; i += blockDim.x) store(to + i, 0.0f);
        return;
    }
    const bool coarse = blockIdx.x >= static_cast<unsigned>(fine);
    const int left = slot % cols * patch, top = slot / cols * patch;
    const float share = coarse ? 0.25f : 1.0f;
    for (int i = threadIdx.x; i < area; i += blockDim.x) {
        const int y = i / patch, x = i - y * patch;
        int red = 0, green = 0, blue = 0;
        for (int part = 0; part < (coarse ? 4 : 1); ++part) {
            const int across = coarse ? 2 * x + (part & 1) : x, down = coarse ? 2 * y + (part >> 1) : y;
            const unsigned rgb = sample(SAMPLED_ARGUMENTS, left + across, top + down);
            red += red_of(rgb);
            green += green_of(rgb);
            blue += blue_of(rgb);
        }
        store(to + i, red * (share * scale_r) + shift_r);
        store(to + area + i, green * (share * scale_g) + shift_g);
        store(to + 2 * area + i, blue * (share * scale_b) + shift_b);
    }
}

#define PATCHES(NAME, T)                                                                                              \
    extern "C" __global__ void __launch_bounds__(256) NAME(                                                           \
        SAMPLED, const int *__restrict__ slots, int fine, int patch, int cols, float scale_r, float scale_g,          \
        float scale_b, float shift_r, float shift_g, float shift_b, T *__restrict__ out) {                            \
        patches(SAMPLED_ARGUMENTS, slots, fine, patch, cols, scale_r, scale_g, scale_b, shift_r, shift_g, shift_b,    \
                out);                                                                                                 \
    }
PATCHES(patches_f32, float)
PATCHES(patches_f16, __half)

// The position that the mirrored border shows, without repeating the edge; i at most 2 outside.
__device__ inline int mirrored(int i, int n) {
    const int inside = i < 0 ? -i : i >= n ? 2 * n - 2 - i : i;
    return min(max(inside, 0), n - 1);  // of a picture of one or two pixels
}

// Half size through 1 4 6 4 1 in both directions, exact in integers. 32×8 threads, a pixel each; neighbours share 3 of
// 5 columns, through L1.
extern "C" __global__ void __launch_bounds__(256)
    pyramid_down(const u8 *__restrict__ image, int width, int height, int pitch, u8 *__restrict__ out, int out_pitch) {
    const int x = blockIdx.x * 32 + threadIdx.x, y = blockIdx.y * 8 + threadIdx.y;
    if (x >= (width + 1) / 2 || y >= (height + 1) / 2) return;
    int columns[5];
#pragma unroll
    for (int i = 0; i < 5; ++i) columns[i] = mirrored(2 * x + i - 2, width);
    int sum = 128;
#pragma unroll
    for (int j = 0; j < 5; ++j) {
        const u8 *row = image + static_cast<size_t>(mirrored(2 * y + j - 2, height)) * pitch;
        const int across = row[columns[0]] + row[columns[4]] + 4 * (row[columns[1]] + row[columns[3]]) +
                           6 * row[columns[2]];
        sum += across * (j == 2 ? 6 : j == 1 || j == 3 ? 4 : 1);
    }
    out[static_cast<size_t>(y) * out_pitch + x] = sum >> 8;
}
