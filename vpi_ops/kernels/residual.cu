// How far each patch is from its reference: patch pyramids, the exposure fit, the robust difference; HSV histogram.
//
// Pixels are bytes in threes. They are taken into shared memory as words first, each once: memory that the host has
// mapped, where pyramids lie, is not cached by Orin's GPU (CUDA for Tegra, table 1), and a third of the loads is fewer
// in any memory.
#include "numbers.cuh"

constexpr int LARGEST_PATCH = 32, LARGEST_HALF = 16, LARGEST_QUARTER = 8;  // pixels along a patch at each size
constexpr int ROW_WORDS = 3 * LARGEST_PATCH / 4 + 1;                       // of a row of a patch, at any alignment
constexpr int HALF_WORDS = 3 * LARGEST_HALF * LARGEST_HALF / 4 + 1;
constexpr int QUARTER_WORDS = 3 * LARGEST_QUARTER * LARGEST_QUARTER / 4 + 1;
constexpr int MOST_TOKENS = 4096;
constexpr int WARPS = 4;

// Bilinear shrink of a square patch within itself: its grid divides its picture's, so no tap leaves it. Row y begins
// at byte (past + y · skew) mod 4 of its words.
__device__ inline u8 shrunk(const u8 *from, int pitch, int past, int skew, int source, int target, int x, int y,
                            int channel) {
    const float step = static_cast<float>(source) / target;
    const float at_x = max((x + 0.5f) * step - 0.5f, 0.0f), at_y = max((y + 0.5f) * step - 0.5f, 0.0f);
    const int left = min(static_cast<int>(at_x), source - 1), top = min(static_cast<int>(at_y), source - 1);
    const int right = min(left + 1, source - 1), down = min(top + 1, source - 1);
    // Weights of 11 bits, and what is cut off on the way, as in OpenCV: on the host the same bytes come out.
    const float lean = 2048 * (at_x - left), fall = 2048 * (at_y - top);
    const int to_left = rintf(2048 - lean), to_right = rintf(lean), to_top = rintf(2048 - fall), to_down = rintf(fall);
    const u8 *upper = from + top * pitch + ((past + top * skew) & 3) + channel;
    const u8 *lower = from + down * pitch + ((past + down * skew) & 3) + channel;
    const int above = (to_left * upper[3 * left] + to_right * upper[3 * right]) >> 4;
    const int below = (to_left * lower[3 * left] + to_right * lower[3 * right]) >> 4;
    return ((to_top * above >> 16) + (to_down * below >> 16) + 2) >> 2;
}

// A block of 64 threads a patch: 147 and 48 values at patch 14. A row of the patch is staged by eight neighbours. Half
// and quarter are written as runs, and the quarter is made from the half in shared memory.
extern "C" __global__ void __launch_bounds__(64)
    fill(const u8 *__restrict__ picture, int cols, int patch, int half, int quarter, u8 *__restrict__ halves,
         u8 *__restrict__ quarters, float *__restrict__ means) {
    __shared__ unsigned whole[LARGEST_PATCH * ROW_WORDS];
    __shared__ u8 fine[LARGEST_HALF * LARGEST_HALF * 3], coarse[LARGEST_QUARTER * LARGEST_QUARTER * 3];
    __shared__ int total;
    const int slot = blockIdx.y * cols + blockIdx.x;
    const int pitch = 3 * cols * patch, fines = half * half * 3, coarses = quarter * quarter * 3;
    const u8 *corner = picture + static_cast<size_t>(blockIdx.y) * patch * pitch + 3 * patch * blockIdx.x;
    const int past = reinterpret_cast<size_t>(corner) & 3;
    if (threadIdx.x == 0) total = 0;
    for (int row = threadIdx.x / 8; row < patch; row += 8)
        staged(corner + row * pitch, 3 * patch, whole + row * ROW_WORDS, threadIdx.x % 8, 8);
    __syncthreads();
    for (int i = threadIdx.x; i < fines; i += blockDim.x) {
        const int pixel = i / 3, y = pixel / half;
        fine[i] = shrunk(reinterpret_cast<const u8 *>(whole), 4 * ROW_WORDS, past, pitch & 3, patch, half,
                         pixel - y * half, y, i - 3 * pixel);
        halves[static_cast<size_t>(slot) * fines + i] = fine[i];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < coarses; i += blockDim.x) {
        const int pixel = i / 3, y = pixel / quarter;
        coarse[i] = shrunk(fine, 3 * half, 0, 0, half, quarter, pixel - y * quarter, y, i - 3 * pixel);
        quarters[static_cast<size_t>(slot) * coarses + i] = coarse[i];
    }
    __syncthreads();
    int sum = 0;
    for (int i = threadIdx.x; i < quarter * quarter; i += blockDim.x)
        sum += (9798 * coarse[3 * i] + 19235 * coarse[3 * i + 1] + 3735 * coarse[3 * i + 2] + 16384) >> 15;
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) atomicAdd(&total, sum);
    __syncthreads();
    if (threadIdx.x == 0) {
        const float mean = static_cast<float>(total) / (quarter * quarter);
        means[slot] = quarter == 2 ? floorf(mean + 0.5f) : rintf(mean);  // halves of a mean of four go up in OpenCV
    }
}

// Floats as unsigned numbers of the same order.
__device__ inline unsigned key_of(float v) {
    const unsigned bits = __float_as_uint(v);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

__device__ inline float value_of(unsigned key) {
    return __uint_as_float(key >> 31 ? key & 0x7fffffffu : ~key);
}

// How many of n keys are below `limit`; the same answer in every thread of the block.
__device__ inline int below(const unsigned *keys, int n, unsigned limit) {
    int count = 0;
    for (int base = 0; base < n; base += blockDim.x) {
        const int i = base + threadIdx.x;
        count += __syncthreads_count(i < n && keys[i] < limit);
    }
    return count;
}

// The key of rank k (0 = smallest), bit by bit from the top: sorting nothing, moving nothing.
__device__ inline unsigned ranked(const unsigned *keys, int n, int k) {
    unsigned found = 0;
    for (int bit = 31; bit >= 0; --bit) {
        const unsigned higher = found | 1u << bit;
        if (below(keys, n, higher) <= k) found = higher;
    }
    return found;
}

// Median, of an even number the upper one. Ends with the block in step.
__device__ inline float median(const unsigned *keys, int n) { return value_of(ranked(keys, n, n / 2)); }

// Sum over the block, in every thread; always in the same order. Warps that have no thread add nothing.
__device__ inline float block_sum(float v, float *parts) {
    v = warp_sum(v);
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = v;
    __syncthreads();
    float sum = 0;
    for (unsigned warp = 0; warp < blockDim.x / 32; ++warp) sum += parts[warp];
    return sum;
}

// One block of 512 threads: four medians and three rounds of reweighted least squares over some hundred numbers, all in
// shared memory. It is bound by its barriers, and spares the frame a read-back in the middle.
extern "C" __global__ void __launch_bounds__(512)
    exposure(const float *__restrict__ reference, const float *__restrict__ current, int n, float floor,
             float *__restrict__ out) {
    __shared__ unsigned keys[MOST_TOKENS];
    __shared__ float parts[16];
    for (int i = threadIdx.x; i < n; i += blockDim.x) keys[i] = key_of(current[i] - reference[i]);
    __syncthreads();
    float gain = 1, offset = median(keys, n);
    bool known = fabsf(offset) >= floor;
    for (int round = 0; round < 3 && known; ++round) {  // the same in every thread
        __syncthreads();
        for (int i = threadIdx.x; i < n; i += blockDim.x)
            keys[i] = key_of(fabsf(current[i] - gain * reference[i] - offset));
        __syncthreads();
        const float reach = 4.685f * fmaxf(1.4826f * median(keys, n), 0.5f);
        float weights = 0, references = 0, currents = 0;
        for (int i = threadIdx.x; i < n; i += blockDim.x) {
            const float part = value_of(keys[i]) / reach, left = fmaxf(1 - part * part, 0.0f), weight = left * left;
            weights += weight;
            references += weight * reference[i];
            currents += weight * current[i];
        }
        weights = block_sum(weights, parts);
        known = weights >= 0.1f * n;
        const float mean_reference = block_sum(references, parts) / weights;
        const float mean_current = block_sum(currents, parts) / weights;
        float variance = 0, covariance = 0;
        for (int i = threadIdx.x; i < n; i += blockDim.x) {
            const float part = value_of(keys[i]) / reach, left = fmaxf(1 - part * part, 0.0f), weight = left * left;
            const float spread = reference[i] - mean_reference;
            variance += weight * spread * spread;
            covariance += weight * spread * (current[i] - mean_current);
        }
        variance = block_sum(variance, parts) / weights;
        covariance = block_sum(covariance, parts) / weights;
        gain = fminf(fmaxf((covariance + 25) / (variance + 25), 0.5f), 2.0f);
        offset = mean_current - gain * mean_reference;
    }
    if (threadIdx.x == 0) {
        out[0] = known ? gain : 1.0f;
        out[1] = known ? offset : 0.0f;
    }
}

// Mean of the `kept` highest differences (largest channel) of one patch, weighted; the work of one warp, and the same
// answer in all its lanes. `found`: room for the differences. The reference is taken at gain and offset.
__device__ inline float top_mean(const u8 *current, const u8 *reference, int pixels, int kept, float weight,
                                 float peak_of_noise, float gain, float offset, u8 *found) {
    const int lane = threadIdx.x % 32;
    int peak = 0;
    for (int i = lane; i < pixels; i += 32) {
        int largest = 0;
#pragma unroll
        for (int channel = 0; channel < 3; ++channel) {
            const float adjusted = fabsf(gain * reference[3 * i + channel] + offset);
            const int there = min(static_cast<int>(rintf(adjusted)), 255);
            largest = max(largest, abs(current[3 * i + channel] - there));
        }
        found[i] = static_cast<u8>(largest);
        peak = max(peak, largest);
    }
    __syncwarp();
    peak = warp_max(peak);
    if (peak <= peak_of_noise) return weight * peak;
    // The kept-th highest difference, bit by bit: eight rounds of votes.
    int limit = 0;
    for (int bit = 7; bit >= 0; --bit) {
        const int higher = limit | 1 << bit;
        int count = 0;
        for (int base = 0; base < pixels; base += 32)
            count += __popc(__ballot_sync(ALL_LANES, base + lane < pixels && found[base + lane] >= higher));
        if (count >= kept) limit = higher;
    }
    int both = 0;  // the sum of those above it, at most 65280, and from bit 20 on their number: added up in one go
    for (int i = lane; i < pixels; i += 32) both += found[i] > limit ? found[i] | 1 << 20 : 0;
    both = warp_sum(both);
    const int total = (both & 0xfffff) + (kept - (both >> 20)) * limit;
    __syncwarp();
    return weight * total / kept;
}

// A warp a patch, four patches a block: 400 patches are 100 blocks. Patches lie packed one after the other, so a warp
// stages a run. Branches are taken by whole warps: most patches are still and done after the peak; only loud ones under
// an exposure change are compared a second time, from shared memory.
extern "C" __global__ void __launch_bounds__(32 * WARPS)
    residual(const u8 *__restrict__ current_half, const u8 *__restrict__ current_quarter,
             const u8 *__restrict__ reference_half, const u8 *__restrict__ reference_quarter,
             const int *__restrict__ slots, const int *__restrict__ sources, int n, int half_pixels, int quarter_pixels,
             int half_kept, int quarter_kept, float half_weight, float quarter_weight, float peak_of_noise, float gate,
             float share, const float *__restrict__ exposure, float *__restrict__ out) {
    __shared__ u8 differences[WARPS][LARGEST_HALF * LARGEST_HALF];
    __shared__ unsigned halves[WARPS][2][HALF_WORDS], quarters[WARPS][2][QUARTER_WORDS];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, i = blockIdx.x * WARPS + warp;
    if (i >= n) return;
    const size_t slot = slots ? slots[i] : i, source = sources ? sources[i] : i;
    const int fines = 3 * half_pixels, coarses = 3 * quarter_pixels;
    const u8 *half = staged(current_half + slot * fines, fines, halves[warp][0], lane, 32);
    const u8 *half_before = staged(reference_half + source * fines, fines, halves[warp][1], lane, 32);
    const u8 *quarter = staged(current_quarter + slot * coarses, coarses, quarters[warp][0], lane, 32);
    const u8 *quarter_before = staged(reference_quarter + source * coarses, coarses, quarters[warp][1], lane, 32);
    __syncwarp();
    u8 *room = differences[warp];
    const float fine = top_mean(half, half_before, half_pixels, half_kept, half_weight, peak_of_noise, 1, 0, room);
    const float coarse = top_mean(quarter, quarter_before, quarter_pixels, quarter_kept, quarter_weight,
                                  peak_of_noise, 1, 0, room);
    float patch = fmaxf(fine, coarse);
    const float gain = exposure ? exposure[0] : 1, offset = exposure ? exposure[1] : 0;
    if (patch > gate && (gain != 1 || offset != 0)) {
        const float fine_at = top_mean(half, half_before, half_pixels, half_kept, half_weight, peak_of_noise, gain,
                                       offset, room);
        const float coarse_at = top_mean(quarter, quarter_before, quarter_pixels, quarter_kept, quarter_weight,
                                         peak_of_noise, gain, offset, room);
        patch = fmaxf(fmaxf(fine_at, coarse_at), share * patch);
    }
    if (lane == 0) out[i] = patch;
}

// The quarter level alone. Shape as above.
extern "C" __global__ void __launch_bounds__(32 * WARPS)
    moved(const u8 *__restrict__ current, const u8 *__restrict__ previous, int n, int pixels, int kept, float weight,
          float peak_of_noise, float *__restrict__ out) {
    __shared__ u8 differences[WARPS][LARGEST_QUARTER * LARGEST_QUARTER];
    __shared__ unsigned quarters[WARPS][2][QUARTER_WORDS];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, i = blockIdx.x * WARPS + warp;
    if (i >= n) return;
    const size_t first = 3 * static_cast<size_t>(i) * pixels;
    const u8 *now = staged(current + first, 3 * pixels, quarters[warp][0], lane, 32);
    const u8 *before = staged(previous + first, 3 * pixels, quarters[warp][1], lane, 32);
    __syncwarp();
    const float patch = top_mean(now, before, pixels, kept, weight, peak_of_noise, 1, 0, differences[warp]);
    if (lane == 0) out[i] = patch;
}

// Hue 0–179, saturation and value of one pixel, each an eighth: bins 0–511. Rounding as OpenCV's, in 12 bits.
__device__ inline int hsv_bin(int red, int green, int blue) {
    const int value = max(red, max(green, blue)), range = value - min(red, min(green, blue));
    const int per_value = value ? (2 * (255 << 12) + value) / (2 * value) : 0;
    const int per_range = range ? (2 * (30 << 12) + range) / (2 * range) : 0;
    const int saturation = (range * per_value + 2048) >> 12;
    const int sixth = value == red ? green - blue : value == green ? blue - red + 2 * range : red - green + 4 * range;
    int hue = (sixth * per_range + 2048) >> 12;
    hue += hue < 0 ? 180 : 0;
    return hue * 8 / 180 << 6 | saturation >> 5 << 3 | value >> 5;
}

// One block of 1024 threads: 6400 pixels are seven rounds, the counts never leave shared memory, and nothing needs to
// be cleared before. Lanes of a warp that hit one bin send one of them, so that a uniform picture is as fast as any.
extern "C" __global__ void __launch_bounds__(1024)
    histogram(const u8 *__restrict__ rgb, int pixels, float *__restrict__ out) {
    __shared__ int counts[512];
    __shared__ unsigned room[3 * 1024 / 4 + 1];
    if (threadIdx.x < 512) counts[threadIdx.x] = 0;
    for (int base = 0; base < pixels; base += blockDim.x) {
        const int left = min(pixels - base, static_cast<int>(blockDim.x)), i = threadIdx.x;
        __syncthreads();
        const u8 *here = staged(rgb + 3 * static_cast<size_t>(base), 3 * left, room, i, blockDim.x);
        __syncthreads();
        const int bin = i < left ? hsv_bin(here[3 * i], here[3 * i + 1], here[3 * i + 2]) : -1;
        const unsigned alike = __match_any_sync(ALL_LANES, bin);
        if (bin >= 0 && i % 32 == __ffs(alike) - 1)
            atomicAdd(&counts[bin], __popc(alike));
    }
    __syncthreads();
    if (threadIdx.x < 512) out[threadIdx.x] = static_cast<float>(counts[threadIdx.x]) / pixels;
}
