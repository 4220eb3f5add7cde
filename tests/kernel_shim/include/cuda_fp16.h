// Half precision as the kernels use it: storage, and conversion with round-to-nearest-even.
#pragma once
#include <cstdint>
#include <cstring>

struct __half {
    std::uint16_t bits;
};

inline float __half2float(__half h) {
    const std::uint32_t sign = (h.bits & 0x8000u) << 16, magnitude = h.bits & 0x7fffu;
    std::uint32_t bits;
    if (magnitude >= 0x7c00u) {
        bits = 0x7f800000u | (magnitude & 0x3ffu) << 13;
    } else if (magnitude >= 0x400u) {
        bits = (magnitude + (112u << 10)) << 13;
    } else {
        const float small = static_cast<float>(magnitude) * 0x1p-24f;
        std::memcpy(&bits, &small, 4);
    }
    bits |= sign;
    float f;
    std::memcpy(&f, &bits, 4);
    return f;
}

inline __half __float2half(float f) {
    std::uint32_t bits;
    std::memcpy(&bits, &f, 4);
    const std::uint16_t sign = bits >> 16 & 0x8000u;
    bits &= 0x7fffffffu;
    if (bits > 0x7f800000u) return {static_cast<std::uint16_t>(sign | 0x7e00u)};
    if (bits >= 0x477ff000u) return {static_cast<std::uint16_t>(sign | 0x7c00u)};
    if (bits < 0x38800000u) {  // below the normal numbers: adding one half lets the float unit round
        float small;
        std::memcpy(&small, &bits, 4);
        small += 0.5f;
        std::memcpy(&bits, &small, 4);
        return {static_cast<std::uint16_t>(sign | (bits - 0x3f000000u))};
    }
    bits += 0xfffu + (bits >> 13 & 1u) - (112u << 23);
    return {static_cast<std::uint16_t>(sign | bits >> 13)};
}
