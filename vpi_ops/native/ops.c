// Image operations on patches and pictures, in few passes: what vpi_ops.host does with OpenCV and NumPy, byte for byte.
//
// Plain C11 in loops that a compiler vectorises. Pixels are RGB bytes in threes; where every third value is wanted, all
// are computed first, and pixels are then moved by four bytes, of which the fourth is overwritten: cheaper than any
// gathering. No function keeps state. The constants come from vpi_ops.host on the compiler's command line.
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__AVX512VBMI__)
#include <immintrin.h>
#endif

#ifndef NOISE_PEAK
#error "compiled by vpi_ops.native, which gives the constants"
#endif

typedef uint8_t u8;

enum { DONE = 0, NO_MEMORY = 1, OUT_OF_RANGE = 2, NOT_MINE = 3 };
enum { MOST_STEPS = 8 };

typedef struct {
    u8 *half, *quarter;
    float *means;
    int32_t rows, cols, patch, half_side, quarter_side;
} Pyramid;

static inline int least(int a, int b) { return a < b ? a : b; }
static inline int most(int a, int b) { return a > b ? a : b; }

// ---- Resizing, as cv2.resize with INTER_LINEAR does it for bytes

// A picture that is halved row by row as its rows are asked for; `room` holds the rows on the way.
typedef struct {
    const u8 *pixels;
    ptrdiff_t pitch;
    int steps;
    struct {
        int across, down, width;  // which axes are halved; pixels in a row that comes out
    } step[MOST_STEPS];
    u8 *room;
    size_t row_room;
} Source;

static inline void move_pixel(u8 *to, const u8 *from) {
    uint32_t four;
    memcpy(&four, from, 4);
    memcpy(to, &four, 4);
}

static const u8 *row_of(const Source *source, int steps, int y);

// Row y after so many steps; what a step across has summed up lies still six bytes from pixel to pixel. It is good until
// a row of the same or an earlier step is asked for.
static const u8 *sums_of(const Source *source, int steps, int y) {
    if (!steps) return source->pixels + y * source->pitch;
    const int across = source->step[steps - 1].across, down = source->step[steps - 1].down;
    const int n = 3 * source->step[steps - 1].width * (across ? 2 : 1);
    u8 *restrict sum = source->room + (size_t)(3 * (steps - 1)) * source->row_room;
    u8 *restrict kept = sum + source->row_room;
    const u8 *a = row_of(source, steps - 1, down ? 2 * y : y), *b = a;
    if (down) {
        if (steps > 1) a = memcpy(kept, a, n);  // the next row will be made where this one lies
        b = row_of(source, steps - 1, 2 * y + 1);
    }
    if (!across)
        for (int i = 0; i < n; ++i) sum[i] = (u8)((a[i] + b[i] + 1) >> 1);
    else if (!down)
        for (int i = 0; i < n - 3; ++i) sum[i] = (u8)((a[i] + a[i + 3] + 1) >> 1);
    else
        for (int i = 0; i < n - 3; ++i) sum[i] = (u8)((a[i] + a[i + 3] + b[i] + b[i + 3] + 2) >> 2);
    return sum;
}

static const u8 *row_of(const Source *source, int steps, int y) {
    const u8 *sum = sums_of(source, steps, y);
    if (!steps || !source->step[steps - 1].across) return sum;
    u8 *out = source->room + (size_t)(3 * (steps - 1) + 2) * source->row_room;
    int x = 0;
#if defined(__AVX512VBMI__)
    enum { PIXELS = 21 };  // to a register, from two
    u8 every[64] = {0};
    for (int i = 0; i < 3 * PIXELS; ++i) every[i] = (u8)(i / 3 * 6 + i % 3);
    const __m512i index = _mm512_loadu_si512(every);
    for (; x + PIXELS <= source->step[steps - 1].width; x += PIXELS) {
        const __m512i low = _mm512_loadu_si512(sum + 6 * x), high = _mm512_loadu_si512(sum + 6 * x + 64);
        _mm512_storeu_si512(out + 3 * x, _mm512_permutex2var_epi8(low, index, high));
    }
#endif
    for (; x < source->step[steps - 1].width; ++x) move_pixel(out + 3 * x, sum + 6 * x);
    return out;
}

// Where a target pixel lies between two source pixels, in weights of 11 bits.
static void between(int i, int source, int target, int *first, int *lean, int *rest) {
    const double step = 1.0 / ((double)target / source);
    float at = (float)((i + 0.5) * step - 0.5);
    *first = (int)floorf(at);
    at -= (float)*first;
    *lean = (int)lrintf(at * 2048);
    *rest = (int)lrintf((1 - at) * 2048);
}

#if defined(__AVX512VBMI__)
// Which bytes of a row become the left and right neighbours of some pixels of the target: those `index` names, of the
// 128 from `base` on.
typedef struct {
    u8 left[64], right[64];
    int base, first;
} Pick;

enum { REACH = 128 };

// Picks for the pixels before `inner`, of a row of `bytes`; returns how many. What a pick has beyond its pixels is
// overwritten by the next one, or lies in the slack of the row.
static int picks_of(const int *left, const int *right, int inner, int bytes, Pick *picks) {
    int count = 0;
    for (int x = 0; x < inner; ++count) {
        Pick *pick = memset(picks + count, 0, sizeof *pick);
        pick->first = x;
        pick->base = most(0, least(left[x], bytes - REACH));
        for (int i = 0; i < 21 && x < inner && right[x] + 3 - pick->base <= REACH; ++i, ++x)
            for (int c = 0; c < 3; ++c) {
                pick->left[3 * i + c] = (u8)(left[x] + c - pick->base);
                pick->right[3 * i + c] = (u8)(right[x] + c - pick->base);
            }
    }
    return count;
}

static void pick_pixels(const Pick *picks, int count, const u8 *from, u8 *lefts, u8 *rights) {
    for (const Pick *pick = picks; pick < picks + count; ++pick) {
        const __m512i low = _mm512_loadu_si512(from + pick->base), high = _mm512_loadu_si512(from + pick->base + 64);
        const __m512i left = _mm512_loadu_si512(pick->left), right = _mm512_loadu_si512(pick->right);
        _mm512_storeu_si512(lefts + 3 * pick->first, _mm512_permutex2var_epi8(low, left, high));
        _mm512_storeu_si512(rights + 3 * pick->first, _mm512_permutex2var_epi8(low, right, high));
    }
}
#endif

// `source`, after its steps (w, h), to (dw, dh) bytes in threes at `to`.
static int resize(Source *source, int w, int h, u8 *to, ptrdiff_t pitch, int dw, int dh, int widest) {
    const size_t n = 3 * (size_t)dw, row = 3 * (size_t)most(widest, dw) + 64;
    u8 *room = malloc((3 * (size_t)source->steps + 2) * row + 2 * row * sizeof(int16_t) + 2 * row * sizeof(uint16_t) +
                      2 * (size_t)dw * sizeof(int));
    if (!room) return NO_MEMORY;
    int *left = (int *)room, *right = left + dw;
    int16_t *restrict rest = (int16_t *)(right + dw), *restrict lean = rest + row;
    uint16_t *mixed[2] = {(uint16_t *)(lean + row), (uint16_t *)(lean + row) + row};
    u8 *restrict lefts = (u8 *)(mixed[1] + row), *restrict rights = lefts + row;
    source->room = rights + row;
    source->row_room = row;
    if (w == dw && h == dh) {
        for (int y = 0; y < h; ++y) memcpy(to + y * pitch, row_of(source, source->steps, y), n);
        free(room);
        return DONE;
    }
    const int apart = source->steps && source->step[source->steps - 1].across ? 6 : 3;
    int inner = 0;  // pixels before this one have no neighbour at the end of a row
    for (int x = 0; x < dw; ++x) {
        int first, to_right, to_left;
        between(x, w, dw, &first, &to_right, &to_left);
        if (first < 0 || first >= w - 1) {
            first = first < 0 ? 0 : w - 1;
            to_left = 2048, to_right = 0;
        }
        left[x] = apart * first;
        right[x] = apart * least(first + 1, w - 1);
        if (first + 1 < w - 1) inner = x + 1;
        for (int c = 0; c < 3; ++c) rest[3 * x + c] = (int16_t)to_left, lean[3 * x + c] = (int16_t)to_right;
    }
#if defined(__AVX512VBMI__)
    const int bytes = apart * w;
    Pick *picks = bytes >= REACH ? malloc(sizeof *picks * (size_t)(inner + 1)) : NULL;
    const int picked = picks ? picks_of(left, right, inner, bytes, picks) : 0;
#endif
    int made[2] = {-1, -1};  // which rows lie in `mixed`
    for (int y = 0; y < dh; ++y) {
        int first, to_below, to_above, at[2];
        between(y, h, dh, &first, &to_below, &to_above);
        const uint16_t *rows[2];
        for (int k = 0; k < 2; ++k) {
            const int wanted = at[k] = most(0, least(first + k, h - 1)), place = wanted & 1;
            if (made[place] != wanted) {
                const u8 *from = sums_of(source, source->steps, wanted);
#if defined(__AVX512VBMI__)
                pick_pixels(picks, picked, from, lefts, rights);
                for (int x = picked ? inner : 0; x < inner; ++x) {
#else
                for (int x = 0; x < inner; ++x) {
#endif
                    move_pixel(lefts + 3 * x, from + left[x]);
                    move_pixel(rights + 3 * x, from + right[x]);
                }
                for (int x = inner; x < dw; ++x) {
                    memcpy(lefts + 3 * x, from + left[x], 3);
                    memcpy(rights + 3 * x, from + right[x], 3);
                }
                uint16_t *restrict mix = mixed[place];
                for (size_t i = 0; i < n; ++i) mix[i] = (uint16_t)((rest[i] * lefts[i] + lean[i] * rights[i]) >> 4);
                made[place] = wanted;
            }
            rows[k] = mixed[place];
        }
        const uint16_t *restrict above = rows[0], *below = rows[1];
        u8 *restrict out = to + y * pitch;
        const int b0 = to_above, b1 = to_below;
        for (size_t i = 0; i < n; ++i) out[i] = (u8)(((b0 * above[i] >> 16) + (b1 * below[i] >> 16) + 2) >> 2);
    }
#if defined(__AVX512VBMI__)
    free(picks);
#endif
    free(room);
    return DONE;
}

// engines.preprocess.shrink: each axis halved while it is at least twice too long, then interpolated. NOT_MINE where an
// odd length would be halved.
int shrink(const u8 *image, ptrdiff_t pitch, int w, int h, u8 *to, ptrdiff_t to_pitch, int dw, int dh) {
    Source source = {.pixels = image, .pitch = pitch};
    const int widest = w;
    while (w >= 2 * dw || h >= 2 * dh) {
        const int across = w >= 2 * dw, down = h >= 2 * dh;
        if (source.steps == MOST_STEPS || (across && w % 2) || (down && h % 2)) return NOT_MINE;
        w >>= across, h >>= down;
        source.step[source.steps].across = across;
        source.step[source.steps].down = down;
        source.step[source.steps++].width = w;
    }
    return resize(&source, w, h, to, to_pitch, dw, dh, widest);
}

// Whether rows of so many bytes are equal: 1 or 0. Far apart rows first, as what differs mostly does in many.
int same(const u8 *a, ptrdiff_t a_pitch, const u8 *b, ptrdiff_t b_pitch, int rows, int bytes) {
    enum { APART = 16 };
    for (int first = 0; first < APART; ++first)
        for (int y = APART - 1 - first; y < rows; y += APART)
            if (memcmp(a + y * a_pitch, b + y * b_pitch, (size_t)bytes)) return 0;
    return 1;
}

// From rows of a picture to patches one after the other.
static inline void scatter(const u8 *restrict from, int rows, int cols, int side, u8 *restrict to) {
    const size_t run = 3 * (size_t)side, patch = run * side;
    for (int row = 0; row < rows; ++row)
        for (int y = 0; y < side; ++y)
            for (int col = 0; col < cols; ++col, from += run)
                memcpy(to + ((size_t)row * cols + col) * patch + y * run, from, run);
}

static void scatter_known(const u8 *from, int rows, int cols, int side, u8 *to) {
    switch (side) {
    case 4: scatter(from, rows, cols, 4, to); break;
    case 7: scatter(from, rows, cols, 7, to); break;
    case 8: scatter(from, rows, cols, 8, to); break;
    default: scatter(from, rows, cols, side, to);
    }
}

static int linear(const u8 *from, int w, int h, u8 *to, int dw, int dh) {
    Source source = {.pixels = from, .pitch = 3 * (ptrdiff_t)w};
    const int widest = w;
    if (w == 2 * dw && h == 2 * dh) {
        source.steps = 1;
        source.step[0].across = source.step[0].down = 1;
        source.step[0].width = dw;
        w = dw, h = dh;
    }
    return resize(&source, w, h, to, 3 * (ptrdiff_t)dw, dw, dh, widest);
}

int fill(const Pyramid *p, const u8 *picture) {
    const int rows = p->rows, cols = p->cols, half = p->half_side, quarter = p->quarter_side;
    const size_t halves = 3 * (size_t)rows * half * cols * half, pixels = (size_t)rows * quarter * cols * quarter;
    u8 *halved = malloc(halves + 4 * pixels + 64);
    if (!halved) return NO_MEMORY;
    u8 *quartered = halved + halves, *restrict grey = quartered + 3 * pixels;
    int status = linear(picture, cols * p->patch, rows * p->patch, halved, cols * half, rows * half);
    if (!status) status = linear(halved, cols * half, rows * half, quartered, cols * quarter, rows * quarter);
    if (!status) {
        scatter_known(halved, rows, cols, half, p->half);
        scatter_known(quartered, rows, cols, quarter, p->quarter);
        const u8 *restrict rgb = p->quarter;
        for (size_t i = 0; i < pixels; ++i)
            grey[i] = (u8)((9798 * rgb[3 * i] + 19235 * rgb[3 * i + 1] + 3735 * rgb[3 * i + 2] + 16384) >> 15);
        const int area = quarter * quarter;
        for (int slot = 0; slot < rows * cols; ++slot) {
            int sum = 0;
            for (int i = 0; i < area; ++i) sum += grey[(size_t)slot * area + i];
            // cv2.resize with INTER_AREA: a mean of four is rounded up at halves, others to even.
            p->means[slot] = quarter == 2 ? (float)((sum + 2) >> 2) : rintf((float)sum * (1.0f / (float)area));
        }
    }
    free(halved);
    return status;
}

// ---- How far patches are from each other

// Weighted mean of the highest TOP_SHARE of the differences (largest channel) of two patches; of a patch whose largest
// difference is within the noise, that one. `at`: what the values of b are to be replaced with first, or NULL.
static inline float top_mean(const u8 *restrict a, const u8 *restrict b, int pixels, double weight, const u8 *at) {
    enum { ROOM = 3 * 256 };
    u8 difference[ROOM], largest[ROOM / 3], *found = difference, *each = largest, *taken = NULL;
    const int bytes = 3 * pixels;
    if (bytes > ROOM) {
        if (!(taken = malloc((size_t)bytes + pixels))) return NAN;
        found = taken, each = taken + bytes;
    }
    if (at)
        for (int i = 0; i < bytes; ++i) found[i] = (u8)abs(a[i] - at[b[i]]);
    else
        for (int i = 0; i < bytes; ++i) found[i] = a[i] > b[i] ? (u8)(a[i] - b[i]) : (u8)(b[i] - a[i]);
    u8 peak = 0;
    for (int i = 0; i < bytes; ++i) peak = found[i] > peak ? found[i] : peak;
    double mean = peak;
    if (peak > NOISE_PEAK) {
        for (int i = 0; i < pixels; ++i) {
            const u8 more = found[3 * i] > found[3 * i + 1] ? found[3 * i] : found[3 * i + 1];
            each[i] = more > found[3 * i + 2] ? more : found[3 * i + 2];
        }
        const int kept = most(1, (int)lrint(TOP_SHARE * pixels));
        int limit = 0;  // the kept-th highest, bit by bit
        for (int bit = 7; bit >= 0; --bit) {
            const int higher = limit | 1 << bit;
            if (higher > peak) continue;
            int count = 0;
            for (int i = 0; i < pixels; ++i) count += each[i] >= higher;
            if (count >= kept) limit = higher;
        }
        int sum = 0, above = 0;
        for (int i = 0; i < pixels; ++i) {
            const int over = each[i] > limit;
            sum += over ? each[i] : 0;
            above += over;
        }
        mean = (double)(sum + (kept - above) * limit) / kept;
    }
    free(taken);
    return (float)(weight * mean);
}

// The common sizes with loops of known length: patches of 14 and 16 pixels.
static inline float top_mean_of(const u8 *a, const u8 *b, int pixels, double weight, const u8 *at) {
    switch (pixels) {
    case 16: return top_mean(a, b, 16, weight, at);
    case 49: return top_mean(a, b, 49, weight, at);
    case 64: return top_mean(a, b, 64, weight, at);
    default: return top_mean(a, b, pixels, weight, at);
    }
}

static inline float both_levels(const Pyramid *a, size_t slot, const Pyramid *b, size_t source, const u8 *at) {
    const int fine = a->half_side * a->half_side, coarse = a->quarter_side * a->quarter_side;
    const float half = top_mean_of(a->half + 3 * fine * slot, b->half + 3 * fine * source, fine, HALF_WEIGHT, at);
    const float quarter =
        top_mean_of(a->quarter + 3 * coarse * slot, b->quarter + 3 * coarse * source, coarse, QUARTER_WEIGHT, at);
    return half > quarter ? half : quarter;
}

// Median, of an even number the upper one: its rank is found bit by bit.
static double median(const double *restrict values, int n, uint64_t *restrict keys) {
    memcpy(keys, values, sizeof(double) * (size_t)n);
    for (int i = 0; i < n; ++i) keys[i] = keys[i] >> 63 ? ~keys[i] : keys[i] | 1ull << 63;  // in the order of values
    uint64_t found = 0;
    for (int bit = 63; bit >= 0; --bit) {
        const uint64_t higher = found | 1ull << bit;
        int64_t below = 0;
        for (int i = 0; i < n; ++i) below += keys[i] < higher;
        if (below <= n / 2) found = higher;
    }
    found = found >> 63 ? found & ~(1ull << 63) : ~found;
    double middle;
    memcpy(&middle, &found, sizeof middle);
    return middle;
}

// Gain and offset with current = gain * reference + offset, as vpi_ops.host.fit_exposure finds them; 1 and 0 where
// there is nothing to fit.
static int fit_exposure(const float *restrict reference, const float *restrict current, int n, double *exposure) {
    exposure[0] = 1, exposure[1] = 0;
    double *restrict error = malloc(sizeof(double) * 3 * (size_t)n);
    if (!error) return NO_MEMORY;
    double *restrict weight = error + n;
    uint64_t *keys = (uint64_t *)(weight + n);
    for (int i = 0; i < n; ++i) error[i] = (double)current[i] - reference[i];
    double gain = 1, offset = median(error, n, keys), total = n;
    const int rounds = fabs(offset) < EXPOSURE_FLOOR ? 0 : 3;
    for (int round = 0; round < rounds && total >= 0.1 * n; ++round) {
        for (int i = 0; i < n; ++i) error[i] = current[i] - gain * reference[i] - offset;
        for (int i = 0; i < n; ++i) weight[i] = fabs(error[i]);
        const double reach = 4.685 * fmax(1.4826 * median(weight, n, keys), 0.5);
        double references = 0, currents = 0;
        total = 0;
        for (int i = 0; i < n; ++i) {
            const double left = fmax(1 - (error[i] / reach) * (error[i] / reach), 0);
            weight[i] = left * left;
            total += weight[i];
            references += weight[i] * reference[i];
            currents += weight[i] * current[i];
        }
        const double mean_reference = references / total, mean_current = currents / total;
        double variance = 0, covariance = 0;
        for (int i = 0; i < n; ++i) {
            const double spread = reference[i] - mean_reference;
            variance += weight[i] * (spread * spread);
            covariance += weight[i] * (spread * (current[i] - mean_current));
        }
        gain = fmin(fmax((covariance / total + 25) / (variance / total + 25), 0.5), 2.0);
        offset = mean_current - gain * mean_reference;
    }
    if (rounds && total >= 0.1 * n) exposure[0] = gain, exposure[1] = offset;
    free(error);
    return DONE;
}

// exposure: gain and offset that were fitted away where the difference is above the gate.
int residual(const Pyramid *current, const Pyramid *reference, float *out, double *exposure) {
    const int n = current->rows * current->cols;
    const int status = fit_exposure(reference->means, current->means, n, exposure);
    if (status) return status;
    for (int slot = 0; slot < n; ++slot) out[slot] = both_levels(current, slot, reference, slot, NULL);
    if (exposure[0] == 1 && exposure[1] == 0) return DONE;
    u8 at[256];
    for (int i = 0; i < 256; ++i)  // as cv2.convertScaleAbs
        at[i] = (u8)least((int)lrintf(fabsf(fmaf((float)i, (float)exposure[0], (float)exposure[1]))), 255);
    for (int slot = 0; slot < n; ++slot) {
        if (!(out[slot] > (float)EXPOSURE_GATE)) continue;
        const float adjusted = both_levels(current, slot, reference, slot, at), kept = (float)EXPOSURE_SHARE * out[slot];
        out[slot] = adjusted > kept ? adjusted : kept;
    }
    return DONE;
}

int residual_at(const Pyramid *current, const int64_t *slots, const Pyramid *reference, const int64_t *sources, int n,
                float *out) {
    const int64_t tokens = (int64_t)current->rows * current->cols, there = (int64_t)reference->rows * reference->cols;
    for (int i = 0; i < n; ++i) {
        if (slots[i] < 0 || slots[i] >= tokens || sources[i] < 0 || sources[i] >= there) return OUT_OF_RANGE;
        out[i] = both_levels(current, slots[i], reference, sources[i], NULL);
    }
    return DONE;
}

int moved(const Pyramid *current, const Pyramid *previous, float *out) {
    const int pixels = current->quarter_side * current->quarter_side, n = current->rows * current->cols;
    const u8 *a = current->quarter, *b = previous->quarter;
    for (int slot = 0; slot < n; ++slot, a += 3 * pixels, b += 3 * pixels)
        out[slot] = top_mean_of(a, b, pixels, QUARTER_WEIGHT, NULL);
    return DONE;
}

// ---- Colours and features

// Counts of hue, saturation and value in eighths, as cv2.cvtColor and cv2.calcHist make them, over their sum.
int histogram(const Pyramid *p, float *out) {
    const int pixels = p->rows * p->cols * p->quarter_side * p->quarter_side;
    int32_t per_value[256] = {0}, per_range[256] = {0}, counts[2][512] = {{0}};
    int16_t bins[256];
    for (int i = 1; i < 256; ++i) {
        per_value[i] = (int32_t)lrint((255 << 12) / (double)i);
        per_range[i] = (int32_t)lrint((180 << 12) / (6.0 * i));
    }
    for (int base = 0; base < pixels; base += 256) {
        const u8 *restrict rgb = p->quarter + 3 * (size_t)base;
        const int n = least(256, pixels - base);
        for (int i = 0; i < n; ++i) {
            const int red = rgb[3 * i], green = rgb[3 * i + 1], blue = rgb[3 * i + 2];
            const int value = most(red, most(green, blue)), range = value - least(red, least(green, blue));
            const int saturation = (range * per_value[value] + 2048) >> 12;
            const int sixth = value == red     ? green - blue
                              : value == green ? blue - red + 2 * range
                                               : red - green + 4 * range;
            int hue = (sixth * per_range[range] + 2048) >> 12;
            hue += hue < 0 ? 180 : 0;
            bins[i] = (int16_t)((hue * 8 / 180) << 6 | (saturation >> 5) << 3 | value >> 5);
        }
        for (int i = 0; i < n; ++i) ++counts[i & 1][bins[i]];
    }
    for (int i = 0; i < 512; ++i) out[i] = (float)(counts[0][i] + counts[1][i]) / (float)pixels;
    return DONE;
}

int blend(float *restrict kept, const float *restrict new, const float *restrict alpha, int tokens, int dim) {
    for (int token = 0; token < tokens; ++token, kept += dim, new += dim) {
        const float share = alpha[token];
        for (int i = 0; i < dim; ++i) kept[i] = new[i] + (kept[i] - new[i]) * share;
    }
    return DONE;
}

// ---- Tokens: what agent.coherence works out for each of them, in the order and with the rounding of NumPy

// The planning state of a camera that agent.coherence.planner keeps, and what it looks up.
typedef struct {
    float *median, *spread, *pressure, *travelled;  // travelled: (n, 2)
    int64_t *hold;
    u8 *seen;
    float *curve, *edges, *context;
    int32_t n, bounds;  // tokens; edges, one less than values of the curve
} Tokens;

static inline int bin_of(const Tokens *t, float ratio) {
    int bin = 0;
    for (int k = 0; k < t->bounds; ++k) bin += t->edges[k] < ratio;
    return bin;
}

static int rising(const void *a, const void *b) {
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

// agent.coherence.staleness.Staleness.tolerated; room: for n values.
static float tolerated(const Tokens *t, const float *ratio, float each, float total, float *room) {
    int first = 0, found = 0;
    while (first < t->bounds && t->edges[first] < 1) ++first;
    int last = first;
    while (last < t->bounds - 1 && t->curve[last + 1] < each) ++last;
    const float highest = t->edges[last];
    for (int i = 0; i < t->n; ++i)
        if (ratio[i] > 1 && ratio[i] <= highest) room[found++] = ratio[i];
    qsort(room, (size_t)found, sizeof(float), rising);
    float sum = 0;
    for (int i = 0; i < found; ++i) {
        sum += t->curve[bin_of(t, room[i])];
        if (sum > total) return fmaxf(1, (float)((double)room[i] * (1 - 1e-6)));
    }
    return highest;
}

typedef struct {
    float rate;  // share of the spread by which noise steps; 0 for the first sample
    float factor, floor, ceiling;  // of the threshold
    float each, total;  // error that may be left undone
    float leave;  // share of the threshold for patches that are held
    int32_t frames;  // for which they are
} Limits;

// agent.coherence.planner.Planner.assess. out: rows of n, ratio, the part of it that noise explains, and the limit;
// flags: rows of n, stale and moving.
int assess(const Tokens *t, const Limits *limits, const float *restrict residual, const float *restrict difference,
           float *restrict out, u8 *restrict flags) {
    const int n = t->n;
    float *restrict ratio = out, *restrict of_noise = out + n, *restrict limit = out + 2 * n;
    float *restrict median = t->median, *restrict spread = t->spread;
    const float rate = limits->rate, factor = limits->factor, floor = limits->floor, ceiling = limits->ceiling;
    for (int i = 0; i < n; ++i) {
        if (rate == 0) {
            median[i] = difference[i];
            spread[i] = 0.25f * difference[i] + 0.25f;
        } else {
            const float away = difference[i] - median[i], step = rate * (spread[i] > 0.1f ? spread[i] : 0.1f);
            const float wider = fabsf(away) - spread[i];
            spread[i] += step * (float)((wider > 0) - (wider < 0));
            median[i] += step * (float)((away > 0) - (away < 0));
        }
        const float level = median[i] + factor * spread[i], thrice = 3 * difference[i];
        const float threshold = level < floor ? floor : level > ceiling ? ceiling : level, noisy = level < 0 ? 0 : level;
        ratio[i] = residual[i] / threshold;
        of_noise[i] = (noisy < thrice ? noisy : thrice) / threshold;
        limit[i] = threshold;
        flags[n + i] = difference[i] > threshold;
    }
    float *room = malloc(sizeof(float) * (size_t)n);
    if (!room) return NO_MEMORY;
    const float others = tolerated(t, ratio, limits->each, limits->total, room), held = limits->leave * others;
    free(room);
    for (int i = 0; i < n; ++i) {
        limit[i] *= t->hold[i] > 0 ? held : others;
        flags[i] = residual[i] > limit[i];
        t->hold[i] = flags[i] ? limits->frames : t->hold[i] > 0 ? t->hold[i] - 1 : 0;
    }
    return DONE;
}

typedef struct {
    double total;  // error of the tokens that see picture
    int32_t changing, pressed;  // clean tokens above the ratio `changing`; tokens that feel any pressure
} Expected;

// agent.coherence.staleness.Staleness.expect, of ratios that noise alone does not explain, and what
// agent.coherence.planner.Planner needs to know of it. stale tokens are as good as `fresh`, coarse ones as `coarse`.
int expect(const Tokens *t, const float *restrict ratio, const float *restrict of_noise, const u8 *restrict stale,
           const u8 *restrict coarse, float fresh, float coarse_error, float changing, float *restrict error,
           Expected *found) {
    const float by_pressure = t->context[0], by_way = t->context[1];
    *found = (Expected){0, 0, 0};
    for (int i = 0; i < t->n; ++i) {
        const float calm = ratio[i] > of_noise[i] ? ratio[i] : 0;
        const float x = t->travelled[2 * i], y = t->travelled[2 * i + 1];
        const float own = t->curve[bin_of(t, calm)];
        const float sum = own + by_pressure * t->pressure[i] + by_way * sqrtf(x * x + y * y);
        error[i] = sum < 1 ? sum : 1;
        if (coarse[i] && error[i] < coarse_error) error[i] = coarse_error;
        if (stale[i]) error[i] = fresh;
        found->total += t->seen[i] ? (double)error[i] : 0;
        found->changing += calm > changing && t->seen[i] && !stale[i];
        found->pressed += t->pressure[i] != 0;
    }
    return DONE;
}

// What a planner and its model of staleness learn from tokens that were encoded, beside `Tokens`.
typedef struct {
    float *counts, *age, *waiting;  // counts: of each value of the curve
    double *moments, *products;     // (2, 2) and (2,), of pressure and way
    const float *kernel;            // (taps,), a Gaussian
    float most;                     // samples that a value of the curve remembers
    double forget;
    int32_t taps, rows, cols;
} Learning;

// Least squares of two unknowns, neither below zero.
static void nonnegative(const double m[4], const double p[2], float *out) {
    const double determinant = m[0] * m[3] - m[1] * m[1];
    if (determinant > 1e-9 * m[0] * m[3]) {
        const double a = m[3] * p[0] - m[1] * p[1], b = m[0] * p[1] - m[1] * p[0];
        if (a >= 0 && b >= 0) {
            out[0] = (float)(a / determinant), out[1] = (float)(b / determinant);
            return;
        }
    }
    const double first = m[0] > 1e-12 ? m[0] : 1e-12, second = m[3] > 1e-12 ? m[3] : 1e-12;
    const int kept = p[1] * p[1] / second > p[0] * p[0] / first;
    const double alone = kept ? p[1] / second : p[0] / first;
    out[kept] = alone > 0 ? (float)alone : 0;
    out[!kept] = 0;
}

// agent.coherence.reckoning.Reckoning.learn: n tokens were encoded, and were wrong by `error`.
int learn(const Tokens *t, const Learning *l, const int64_t *restrict slots, int n, const float *restrict error,
          const u8 *restrict stale, const float *restrict ratio) {
    enum { VALUES = 64 };
    const int tokens = t->n, taps = l->taps, reach = taps / 2;
    double sums[VALUES] = {0}, moments[4] = {0}, products[2] = {0};
    int counts[VALUES] = {0}, calm = 0;
    if (t->bounds >= VALUES) return OUT_OF_RANGE;
    float *cause = calloc(2 * (size_t)tokens, sizeof *cause);
    if (!cause) return NO_MEMORY;
    for (int i = 0; i < n; ++i) {
        const int64_t slot = slots[i];
        const float x = t->travelled[2 * slot], y = t->travelled[2 * slot + 1], way = sqrtf(x * x + y * y);
        const float context = t->context[0] * t->pressure[slot] + t->context[1] * way;
        const int bin = bin_of(t, ratio[slot]);
        sums[bin] += error[i] > context ? (double)(error[i] - context) : 0;
        counts[bin]++;
    }
    for (int bin = 0; bin <= t->bounds; ++bin) {
        if (!counts[bin]) continue;
        const double rate = counts[bin] / (double)(l->counts[bin] + (float)counts[bin]);
        t->curve[bin] += (float)(rate * (sums[bin] / counts[bin] - (double)t->curve[bin]));
        l->counts[bin] += (float)counts[bin];
        if (l->counts[bin] > l->most) l->counts[bin] = l->most;
    }
    for (int i = 0; i < n; ++i) {
        const int64_t slot = slots[i];
        if (stale[slot]) cause[slot] = error[i];
        if (!(ratio[slot] <= t->edges[1])) continue;
        const float x = t->travelled[2 * slot], y = t->travelled[2 * slot + 1];
        const double one = (double)t->pressure[slot], two = (double)sqrtf(x * x + y * y);
        const double left = error[i] > t->curve[0] ? (double)(error[i] - t->curve[0]) : 0;
        moments[0] += one * one, moments[1] += one * two, moments[3] += two * two;
        products[0] += one * left, products[1] += two * left;
        calm = 1;
    }
    if (calm) {
        moments[2] = moments[1];
        for (int i = 0; i < 4; ++i) l->moments[i] = l->forget * l->moments[i] + moments[i];
        for (int i = 0; i < 2; ++i) l->products[i] = l->forget * l->products[i] + products[i];
        nonnegative(l->moments, l->products, t->context);
    }
    float *restrict across = cause + tokens, mean = 0;
    for (int i = 0; i < tokens; ++i) mean += cause[i];
    mean /= (float)tokens;
    for (int y = 0; y < l->rows; ++y)
        for (int x = 0; x < l->cols; ++x) {
            float sum = 0;
            for (int k = 0; k < taps; ++k) sum += l->kernel[k] * cause[y * l->cols + most(0, least(x + k - reach, l->cols - 1))];
            across[y * l->cols + x] = sum;
        }
    for (int y = 0; y < l->rows; ++y)
        for (int k = 0; k < taps; ++k) {
            const float weight = l->kernel[k], *restrict from = across + most(0, least(y + k - reach, l->rows - 1)) * l->cols;
            for (int x = 0; x < l->cols; ++x) t->pressure[y * l->cols + x] += weight * from[x];
        }
    for (int i = 0; i < tokens; ++i) t->pressure[i] += mean, l->age[i] += 1;
    for (int i = 0; i < n; ++i) {
        const int64_t slot = slots[i];
        l->age[slot] = l->waiting[slot] = t->pressure[slot] = t->travelled[2 * slot] = t->travelled[2 * slot + 1] = 0;
    }
    free(cause);
    return DONE;
}

// Sums of a, b, a², b² and ab over n bytes, n below 2³⁰.
int sums(const u8 *restrict a, const u8 *restrict b, ptrdiff_t n, int64_t *out) {
    int64_t total[5] = {0};
    for (ptrdiff_t base = 0; base < n; base += 4096) {
        const int some = (int)(n - base < 4096 ? n - base : 4096);
        const u8 *restrict x = a + base, *restrict y = b + base;
        int32_t sx = 0, sy = 0, sxx = 0, syy = 0, sxy = 0;
        for (int i = 0; i < some; ++i) {
            sx += x[i], sy += y[i];
            sxx += x[i] * x[i], syy += y[i] * y[i], sxy += x[i] * y[i];
        }
        total[0] += sx, total[1] += sy, total[2] += sxx, total[3] += syy, total[4] += sxy;
    }
    memcpy(out, total, sizeof total);
    return DONE;
}

enum { LANES = 16 };

// agent.coherence.cuts.token_cosines: of rows of n × dim.
int cosines(const float *restrict a, const float *restrict b, int n, int dim, float *restrict out) {
    for (int row = 0; row < n; ++row, a += dim, b += dim) {
        float products[LANES] = {0}, mine[LANES] = {0}, theirs[LANES] = {0};
        int i = 0;
        for (; i + LANES <= dim; i += LANES)
            for (int k = 0; k < LANES; ++k) {
                products[k] += a[i + k] * b[i + k];
                mine[k] += a[i + k] * a[i + k];
                theirs[k] += b[i + k] * b[i + k];
            }
        for (int k = 0; i < dim; ++i, ++k) products[k] += a[i] * b[i], mine[k] += a[i] * a[i], theirs[k] += b[i] * b[i];
        float across = 0, of_a = 0, of_b = 0;
        for (int k = 0; k < LANES; ++k) across += products[k], of_a += mine[k], of_b += theirs[k];
        const float norms = sqrtf(of_a * of_b);
        out[row] = norms > 0 ? across / norms : 0;
    }
    return DONE;
}

// Two scalar products of each row of n × dim, with two rows of signs: out is 2 × n.
int project(const float *restrict rows, const float *restrict signs, int n, int dim, float *restrict out) {
    for (int row = 0; row < n; ++row, rows += dim) {
        float one[LANES] = {0}, other[LANES] = {0};
        int i = 0;
        for (; i + LANES <= dim; i += LANES)
            for (int k = 0; k < LANES; ++k) {
                one[k] += rows[i + k] * signs[i + k];
                other[k] += rows[i + k] * signs[dim + i + k];
            }
        for (int k = 0; i < dim; ++i, ++k) one[k] += rows[i] * signs[i], other[k] += rows[i] * signs[dim + i];
        out[row] = out[n + row] = 0;
        for (int k = 0; k < LANES; ++k) out[row] += one[k], out[n + row] += other[k];
    }
    return DONE;
}
