// Loads and stores of one or four neighbouring values, float or half, as floats; sums over a warp.
#pragma once
#include <cuda_fp16.h>

typedef unsigned char u8;
constexpr unsigned ALL_LANES = 0xffffffffu;

__device__ inline float4 load4(const float *from) { return *reinterpret_cast<const float4 *>(from); }

__device__ inline void store4(float *to, float4 v) { *reinterpret_cast<float4 *>(to) = v; }

// Halves come and go as one word of 8 bytes.
struct alignas(8) Halves {
    __half x, y, z, w;
};

__device__ inline float4 load4(const __half *from) {
    const Halves v = *reinterpret_cast<const Halves *>(from);
    return make_float4(__half2float(v.x), __half2float(v.y), __half2float(v.z), __half2float(v.w));
}

__device__ inline void store4(__half *to, float4 v) {
    *reinterpret_cast<Halves *>(to) = {__float2half(v.x), __float2half(v.y), __float2half(v.z), __float2half(v.w)};
}

__device__ inline void store(float *to, float v) { *to = v; }

__device__ inline void store(__half *to, float v) { *to = __float2half(v); }

__device__ inline float4 mix(float4 a, float4 b, float share) {
    const float rest = 1 - share;
    return make_float4(rest * a.x + share * b.x, rest * a.y + share * b.y, rest * a.z + share * b.z,
                       rest * a.w + share * b.w);
}

__device__ inline int warp_sum(int v) {
    for (int apart = 16; apart; apart >>= 1) v += __shfl_xor_sync(ALL_LANES, v, apart);
    return v;
}

__device__ inline float warp_sum(float v) {
    for (int apart = 16; apart; apart >>= 1) v += __shfl_xor_sync(ALL_LANES, v, apart);
    return v;
}

__device__ inline int warp_max(int v) {
    for (int apart = 16; apart; apart >>= 1) v = max(v, __shfl_xor_sync(ALL_LANES, v, apart));
    return v;
}

// Bytes that lie anywhere, into shared memory: whole words, neighbours by neighbours, each read once. `worker` of
// `workers` threads; they have to meet before they read. Returns where the first byte is. No word is read that holds
// none of the bytes wanted.
__device__ inline const u8 *staged(const u8 *from, int bytes, unsigned *room, int worker, int workers) {
    const int past = reinterpret_cast<size_t>(from) & 3;
    const unsigned *words = reinterpret_cast<const unsigned *>(from - past);
    for (int i = worker; 4 * i < past + bytes; i += workers) room[i] = words[i];
    return reinterpret_cast<const u8 *>(room) + past;
}
