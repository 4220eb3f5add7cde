// What CUDA gives a kernel, for g++: a grid is run block by block in one thread, and a block thread by thread; where a
// thread waits for others it is put aside on a stack of its own (a fiber) and the next one goes on.
//
// Strict where hardware is undefined: barriers that not all threads reach, lanes that meet in different collectives or
// are not in the mask, arguments of the wrong size: the launch fails with a sentence. Shared memory holds rubbish when
// a block begins.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <tuple>

#define __global__
#define __device__
#define __launch_bounds__(...)
#define __restrict__ __restrict
#define __shared__ static __attribute__((section("shim_shared")))

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};
extern dim3 threadIdx, blockIdx, blockDim, gridDim;

struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(4) short2 {
    short x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline float max(float a, float b) { return fmaxf(a, b); }
inline float __uint_as_float(unsigned bits) {
    float f;
    std::memcpy(&f, &bits, 4);
    return f;
}
inline unsigned __float_as_uint(float f) {
    unsigned bits;
    std::memcpy(&bits, &f, 4);
    return bits;
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    return static_cast<unsigned>((static_cast<std::uint64_t>(high) << 32 | low) >> (shift & 31));
}
inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __ffs(unsigned v) { return __builtin_ffs(static_cast<int>(v)); }
inline int atomicAdd(int *at, int v) {
    const int old = *at;
    *at += v;
    return old;
}

namespace shim {
enum class Kind { SYNC, SHUFFLE, BALLOT, MATCH };
unsigned collective(Kind kind, unsigned mask, unsigned value, unsigned partner);
int barrier(bool counts);
const char *run(const unsigned *dims, void (*call)(const void *), const void *arguments);

template <class T> constexpr char letter() {
    static_assert(std::is_pointer_v<T> || std::is_same_v<T, int> || std::is_same_v<T, float>, "argument type");
    return std::is_pointer_v<T> ? 'P' : std::is_same_v<T, int> ? 'i' : 'f';
}

template <class... A> const char *signature(void (*)(A...)) {
    static const char letters[] = {letter<A>()..., 0};
    return letters;
}

// Arguments as they are packed for a launch, each aligned to its size.
template <auto kernel, class... A>
const char *launch(void (*)(A...), const unsigned *dims, const char *packed, std::size_t size) {
    std::tuple<A...> arguments;
    std::size_t at = 0;
    const auto take = [&](auto &argument) {
        at = (at + sizeof argument - 1) / sizeof argument * sizeof argument;
        if (at + sizeof argument <= size) std::memcpy(&argument, packed + at, sizeof argument);
        at += sizeof argument;
    };
    std::apply([&](auto &...all) { (take(all), ...); }, arguments);
    if (at != size) return "the arguments of the launch are of another size than those of the kernel";
    return run(dims, [](const void *all) { std::apply(kernel, *static_cast<const std::tuple<A...> *>(all)); },
               &arguments);
}
}  // namespace shim

inline void __syncthreads() { shim::barrier(false); }
inline int __syncthreads_count(bool counts) { return shim::barrier(counts); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { shim::collective(shim::Kind::SYNC, mask, 0, 0); }
inline unsigned __ballot_sync(unsigned mask, bool vote) {
    return shim::collective(shim::Kind::BALLOT, mask, vote, 0);
}
inline unsigned __match_any_sync(unsigned mask, int value) {
    return shim::collective(shim::Kind::MATCH, mask, static_cast<unsigned>(value), 0);
}
inline int __shfl_xor_sync(unsigned mask, int value, int apart) {
    return static_cast<int>(shim::collective(shim::Kind::SHUFFLE, mask, static_cast<unsigned>(value), apart));
}
inline float __shfl_xor_sync(unsigned mask, float value, int apart) {
    return __uint_as_float(shim::collective(shim::Kind::SHUFFLE, mask, __float_as_uint(value), apart));
}

// A kernel's entries in the library.
#define SHIM_KERNEL(NAME)                                                                                             \
    extern "C" const char *signature_##NAME() { return shim::signature(&NAME); }                                      \
    extern "C" const char *launch_##NAME(const unsigned *dims, const char *packed, std::size_t size) {                \
        return shim::launch<&NAME>(&NAME, dims, packed, size);                                                        \
    }
