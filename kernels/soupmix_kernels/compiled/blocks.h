// Weights that are held in 8 or 4 bits: blocks of 16 outputs by 32 inputs, a scale for every 32 of an output, and a shift where a
// kind has one. What is multiplied is scale * number + shift, rounded to bf16 once, so a product is that of a bf16 weight, bit for
// bit; scale * number is exact in fp32, so whether it is fused with the sum is all the same.
#pragma once
#include "vectors.h"

extern "C" {
// W [out, in], rows `ld` numbers apart, or blocks [out / 16, in / 32] of a kind: 0 none, 1 Eight, 2 Four, 3 Shifted. bias [out] or
// null. A [slices R, in], and B of every slice [R / 8, width / 32, 8, 32], filled up with zeros, as they lie in memory; null where
// no adapter is. table: which of the step's coefficients. rank: that of every adapter, 0 where they differ.
struct Linear {
  const void *W; const float *bias; const void *A, *B;
  int32_t in, out, R, slices, table, rank, widths[3], ld, kind, unused;
};
struct Eight { uint16_t scale[16]; int8_t number[16][32]; };
struct Four { uint16_t scale[16]; uint8_t number[16][16]; };  // numbers i and i + 16 in one byte, the first in the low half; 8 is 0
struct Shifted { uint16_t scale[16], shift[16]; uint8_t number[16][16]; };  // as in Four, but 0 is 0
}

namespace {
typedef int8_t B __attribute__((vector_size(LANES)));
typedef int8_t NearB __attribute__((vector_size(LANES), aligned(1), may_alias));
typedef int32_t I __attribute__((vector_size(4 * LANES)));
inline float half(uint16_t h) {
  uint32_t u = uint32_t(h & 0x7fff) << 13, sign = uint32_t(h & 0x8000) << 16; float f;
  memcpy(&f, &u, 4); f *= 0x1p112f; memcpy(&u, &f, 4); u |= sign; memcpy(&f, &u, 4);
  return f;
}
inline V floats(const int8_t *p) {
#ifdef __AVX512F__
  return (V)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
#else
  return __builtin_convertvector(__builtin_convertvector(*(const NearB *)p, I), V);
#endif
}
#if defined(__AVX512BF16__) || defined(__AVX2__)
// One output of a block: 32 numbers, their products with the scale, shifted, rounded once. A shift of -0 changes no bit.
inline void decoded(__m128i low, __m128i high, float scale, float shift, bf16 *to) {
#ifdef __AVX512BF16__
  const __m512 s = _mm512_set1_ps(scale), m = _mm512_set1_ps(shift);
  const __m512 a = _mm512_fmadd_ps(s, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(low)), m);
  const __m512 b = _mm512_fmadd_ps(s, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(high)), m);
  _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh(b, a));
#else
  const __m256 s = _mm256_set1_ps(scale), m = _mm256_set1_ps(shift);
  const auto rounded = [&](__m128i eight) {  // to the nearest, ties to even, of finite numbers
    const __m256i u = _mm256_castps_si256(_mm256_fmadd_ps(s, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(eight)), m));
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    return _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd), 16);
  };
  const auto sixteen_of = [&](__m128i sixteen, bf16 *at) {
    const __m256i both = _mm256_packus_epi32(rounded(sixteen), rounded(_mm_srli_si128(sixteen, 8)));
    _mm256_storeu_si256((__m256i *)at, _mm256_permute4x64_epi64(both, 0xd8));
  };
  sixteen_of(low, to), sixteen_of(high, to + 16);
#endif
}
inline void wide_scales(const uint16_t *scale, float *to) {
#ifdef __AVX512F__
  _mm512_store_ps(to, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)scale)));
#else
  for (int o = 0; o < 16; o++) to[o] = half(scale[o]);
#endif
}
inline void decode(const Eight &b, bf16 *to, size_t ld) {
  alignas(64) float scale[16];
  wide_scales(b.scale, scale);
  for (int o = 0; o < 16; o++) {
    const __m128i *n = (const __m128i *)b.number[o];
    decoded(_mm_loadu_si128(n), _mm_loadu_si128(n + 1), scale[o], -0.f, to + o * ld);
  }
}
inline void decode(const Four &b, bf16 *to, size_t ld) {
  alignas(64) float scale[16];
  wide_scales(b.scale, scale);
  const __m128i low = _mm_set1_epi8(15), zero = _mm_set1_epi8(8);
  for (int o = 0; o < 16; o++) {
    const __m128i both = _mm_loadu_si128((const __m128i *)b.number[o]), high = _mm_and_si128(_mm_srli_epi16(both, 4), low);
    decoded(_mm_sub_epi8(_mm_and_si128(both, low), zero), _mm_sub_epi8(high, zero), scale[o], -0.f, to + o * ld);
  }
}
inline void decode(const Shifted &b, bf16 *to, size_t ld) {
  alignas(64) float scale[16], shift[16];
  wide_scales(b.scale, scale), wide_scales(b.shift, shift);
  const __m128i low = _mm_set1_epi8(15);
  for (int o = 0; o < 16; o++) {
    const __m128i both = _mm_loadu_si128((const __m128i *)b.number[o]), high = _mm_and_si128(_mm_srli_epi16(both, 4), low);
    decoded(_mm_and_si128(both, low), high, scale[o], shift[o], to + o * ld);
  }
}
#else
inline void decode(const Eight &b, bf16 *to, size_t ld) {
  for (int o = 0; o < 16; o++) {
    const V scale = all(half(b.scale[o]));
    for (int i = 0; i < 32; i += LANES) store(to + o * ld + i, scale * floats(b.number[o] + i));
  }
}
inline void decode(const Four &b, bf16 *to, size_t ld) {
  for (int o = 0; o < 16; o++) {
    const V scale = all(half(b.scale[o]));
    int8_t n[32];
    for (int i = 0; i < 16; i++) { n[i] = int8_t(b.number[o][i] & 15) - 8; n[i + 16] = int8_t(b.number[o][i] >> 4) - 8; }
    for (int i = 0; i < 32; i += LANES) store(to + o * ld + i, scale * floats(n + i));
  }
}
inline void decode(const Shifted &b, bf16 *to, size_t ld) {
  for (int o = 0; o < 16; o++) {
    const V scale = all(half(b.scale[o])), shift = all(half(b.shift[o]));
    int8_t n[32];
    for (int i = 0; i < 16; i++) { n[i] = int8_t(b.number[o][i] & 15); n[i + 16] = int8_t(b.number[o][i] >> 4); }
    for (int i = 0; i < 32; i += LANES) store(to + o * ld + i, scale * floats(n + i) + shift);
  }
}
#endif
constexpr size_t AHEAD = 4096;  // bytes that are asked for before they are decoded
template <class K> inline void decode_all(const Linear &l, int o, int count, bf16 *to) {
  const size_t deep = (l.in + 31) / 32, ld = deep * 32;
  for (int j = o / 16; j < (o + count) / 16; j++, to += 16 * ld)
    for (size_t i = 0; i < deep; i++) {
      const K &block = ((const K *)l.W)[j * deep + i];
      for (size_t n = 0; n < sizeof(K); n += 64) __builtin_prefetch((const char *)&block + AHEAD + n, 0, 2);
      decode(block, to + 32 * i, ld);
    }
}
// outputs o to o + count, a multiple of 16 each, as rows of bf16 [count, inputs, filled up to a multiple of 32]
inline void decode(const Linear &l, int o, int count, bf16 *to) {
  (l.kind == 1 ? decode_all<Eight> : l.kind == 2 ? decode_all<Four> : decode_all<Shifted>)(l, o, count, to);
}
}  // namespace
