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
inline V floats(const int8_t *p) {
#ifdef __AVX512F__
  return (V)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
#else
  return __builtin_convertvector(__builtin_convertvector(*(const NearB *)p, I), V);
#endif
}
inline void halves(const uint16_t *from, float *to) {  // 16 numbers of half precision in fp32
  for (int i = 0; i < 16; i += LANES) {
#ifdef __AVX512F__
    store(to + i, (V)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(from + i))));
#else
    const U h = __builtin_convertvector(*(const NearH *)(from + i), U), number = (U)((V)((h & 0x7fff) << 13) * 0x1p112f);
    store(to + i, (V)(number | (h & 0x8000) << 16));
#endif
  }
}
#ifdef __AVX2__
struct Numbers { __m128i low, high; };  // of one output
inline Numbers numbers(const Eight &b, int o) {
  const __m128i *n = (const __m128i *)b.number[o];
  return {_mm_loadu_si128(n), _mm_loadu_si128(n + 1)};
}
inline Numbers nibbles(const uint8_t *n) {
  const __m128i both = _mm_loadu_si128((const __m128i *)n), low = _mm_set1_epi8(15);
  return {_mm_and_si128(both, low), _mm_and_si128(_mm_srli_epi16(both, 4), low)};
}
inline Numbers numbers(const Four &b, int o) {
  const Numbers n = nibbles(b.number[o]);
  const __m128i zero = _mm_set1_epi8(8);
  return {_mm_sub_epi8(n.low, zero), _mm_sub_epi8(n.high, zero)};
}
inline Numbers numbers(const Shifted &b, int o) { return nibbles(b.number[o]); }
inline void place(const Numbers &n, int8_t *to) {
  _mm_store_si128((__m128i *)to, n.low); _mm_store_si128((__m128i *)to + 1, n.high);
}
#else
struct Numbers { int8_t at[32]; };
inline Numbers numbers(const Eight &b, int o) {
  Numbers n;
  memcpy(n.at, b.number[o], 32);
  return n;
}
inline Numbers nibbles(const uint8_t *from, int zero) {
  Numbers n;
  for (int i = 0; i < 16; i++) { n.at[i] = int8_t(from[i] & 15) - zero; n.at[i + 16] = int8_t(from[i] >> 4) - zero; }
  return n;
}
inline Numbers numbers(const Four &b, int o) { return nibbles(b.number[o], 8); }
inline Numbers numbers(const Shifted &b, int o) { return nibbles(b.number[o], 0); }
inline void place(const Numbers &n, int8_t *to) { memcpy(to, n.at, 32); }
#endif
inline const uint16_t *shifts(const Shifted &b) { return b.shift; }
template <class K> inline const uint16_t *shifts(const K &) { return nullptr; }
struct Line { float scale[16], shift[16]; };  // of the outputs of a block; a shift of -0 changes no bit
template <class K> inline Line line(const K &b) {
  Line l;
  halves(b.scale, l.scale);
  if (shifts(b)) halves(shifts(b), l.shift);
  else for (int o = 0; o < 16; o++) l.shift[o] = -0.f;
  return l;
}
// One output of a block: 32 numbers, their products with the scale, shifted, rounded once.
template <class K> inline void decoded(const K &b, int o, const Line &l, bf16 *to) {
  const Numbers n = numbers(b, o);
#ifdef __AVX512BF16__
  const __m512 s = _mm512_set1_ps(l.scale[o]), m = _mm512_set1_ps(l.shift[o]);
  const __m512 low = _mm512_fmadd_ps(s, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(n.low)), m);
  const __m512 high = _mm512_fmadd_ps(s, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(n.high)), m);
  _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh(high, low));
#else
  alignas(32) int8_t at[32];
  place(n, at);
  for (int i = 0; i < 32; i += LANES) store(to + i, all(l.scale[o]) * floats(at + i) + all(l.shift[o]));
#endif
}
template <class K> inline void decode(const K &b, bf16 *to, size_t ld) {
  const Line l = line(b);
  for (int o = 0; o < 16; o++) decoded(b, o, l, to + o * ld);
}
constexpr size_t AHEAD = 4096;  // bytes that are asked for before they are decoded
template <class K> inline void ask_ahead(const K &b) {
  for (size_t n = 0; n < sizeof(K); n += 64) __builtin_prefetch((const char *)&b + AHEAD + n, 0, 2);
}
template <class K> inline const K *row_of(const Linear &l, int o) { return (const K *)l.W + size_t(o / 16) * ((l.in + 31) / 32); }
// outputs o to o + count, a multiple of 16 each, as rows of bf16 [count, inputs, filled up to a multiple of 32]
template <class K> inline void decode_all(const Linear &l, int o, int count, bf16 *to) {
  const size_t deep = (l.in + 31) / 32, ld = deep * 32;
  for (int end = o + count; o < end; o += 16, to += 16 * ld)
    for (size_t i = 0; i < deep; i++) {
      const K &b = row_of<K>(l, o)[i];
      ask_ahead(b);
      decode(b, to + 32 * i, ld);
    }
}
inline void decode(const Linear &l, int o, int count, bf16 *to) {
  (l.kind == 1 ? decode_all<Eight> : l.kind == 2 ? decode_all<Four> : decode_all<Shifted>)(l, o, count, to);
}
#if defined(__AVX2__) && !defined(__AVX512F__)
#define SOUPMIX_SPREADS
// The same in fp32, in the order of `widened`: even numbers of two vectors before the odd ones. An output is GROUP vectors.
constexpr int GROUP = 32 / LANES;
constexpr int SOME = 4;  // outputs that are decoded side by side, step by step, as each step waits for the one before
// Of 16 bytes, which are there twice, those at even or at odd places, each in a lane of its own: unsigned, or in its highest byte,
// so signed and 2^24 times as much.
alignas(32) const uint32_t LOW[2][8] = {{0xffffff00, 0xffffff02, 0xffffff04, 0xffffff06, 0xffffff08, 0xffffff0a, 0xffffff0c, 0xffffff0e},
                                        {0xffffff01, 0xffffff03, 0xffffff05, 0xffffff07, 0xffffff09, 0xffffff0b, 0xffffff0d, 0xffffff0f}};
alignas(32) const uint32_t HIGH[2][8] = {{0x00ffffff, 0x02ffffff, 0x04ffffff, 0x06ffffff, 0x08ffffff, 0x0affffff, 0x0cffffff, 0x0effffff},
                                         {0x01ffffff, 0x03ffffff, 0x05ffffff, 0x07ffffff, 0x09ffffff, 0x0bffffff, 0x0dffffff, 0x0fffffff}};
inline __m256i spread(__m256i twice, const uint32_t *to) { return _mm256_shuffle_epi8(twice, _mm256_load_si256((const __m256i *)to)); }
inline __m256i twice(const void *bytes) { return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)bytes)); }
inline __m256i spread(const uint8_t *nibbles, int k) {
  const __m256i both = twice(nibbles), part = k / 2 ? _mm256_srli_epi16(both, 4) : both;
  return spread(_mm256_and_si256(part, _mm256_set1_epi8(15)), LOW[k % 2]);
}
// Vector k of an output: its numbers, but those of `Eight` 2^24 times as much.
inline V spread(const Eight &b, int o, int k) { return (V)_mm256_cvtepi32_ps(spread(twice(b.number[o] + k / 2 * 16), HIGH[k % 2])); }
inline V spread(const Four &b, int o, int k) {
  return (V)_mm256_cvtepi32_ps(_mm256_sub_epi32(spread(b.number[o], k), _mm256_set1_epi32(8)));
}
inline V spread(const Shifted &b, int o, int k) { return (V)_mm256_cvtepi32_ps(spread(b.number[o], k)); }
template <class K> inline Line spread_line(const K &b) { return line(b); }
inline Line spread_line(const Eight &b) {
  Line l = line(b);
  for (int o = 0; o < 16; o += LANES) store(l.scale + o, load(l.scale + o) * 0x1p-24f);
  return l;
}
inline V anew(const float *x) {  // not kept in a register from one use to the next: there are too few
  V found;
  asm volatile("vbroadcastss %1, %0" : "=x"(found) : "m"(*x));
  return found;
}
// w [SOME]: vector k of outputs from o on, rounded as to bf16, to the nearest, ties to even: added to 2^16 times the power of two in
// it, a number has no more than 8 bits. Scales in half precision keep all numbers far from the largest and the least.
template <class K> inline void decoded(const K &b, int o, int k, const Line &l, V (&w)[SOME]) {
  V power[SOME];
#pragma GCC unroll 4
  for (int j = 0; j < SOME; j++) w[j] = spread(b, o + j, k);
#pragma GCC unroll 4
  for (int j = 0; j < SOME; j++) w[j] = shifts(b) ? anew(l.scale + o + j) * w[j] + anew(l.shift + o + j) : anew(l.scale + o + j) * w[j];
#pragma GCC unroll 4
  for (int j = 0; j < SOME; j++) power[j] = (V)((U)w[j] & 0xff800000u);
#pragma GCC unroll 4
  for (int j = 0; j < SOME; j++) w[j] = w[j] + power[j] * 65536.f;
#pragma GCC unroll 4
  for (int j = 0; j < SOME; j++) w[j] = w[j] - power[j] * 65536.f;
}
// f(at, w): of outputs o + first to o + first + SOME the vectors at inputs `at`, one after the other. lines: room for a row of them.
template <class K, class F> inline void each_decoded(const Linear &l, int o, Line *lines, int first, F f) {
  const K *b = row_of<K>(l, o);
  const int deep = (l.in + 31) / 32;
  for (int i = 0; i < deep && !first; i++) lines[i] = spread_line(b[i]);
  for (int i = 0; i < deep; i++) {
    if (!first) ask_ahead(b[i]);
#pragma GCC unroll 4
    for (int k = 0; k < GROUP; k++) {
      V w[SOME];
      decoded(b[i], first, k, lines[i], w);
      f(i * 32 + k * LANES, w);
    }
  }
}
template <class F> inline void each_decoded(const Linear &l, int o, Line *lines, int first, F f) {
  if (l.kind == 1) each_decoded<Eight>(l, o, lines, first, f);
  else if (l.kind == 2) each_decoded<Four>(l, o, lines, first, f);
  else each_decoded<Shifted>(l, o, lines, first, f);
}
// to: these outputs as rows [SOME, inputs, filled up to a multiple of 32]
inline void decode_some(const Linear &l, int o, Line *lines, int first, float *to) {
  const size_t ld = (l.in + 31) / 32 * 32;
  each_decoded(l, o, lines, first, [&](int at, const V (&w)[SOME]) {
    for (int j = 0; j < SOME; j++) store(to + j * ld + at, w[j]);
  });
}
// found [R, SOME]: their products with R rows of x, which are filled up with zeros
template <int R> inline void dot_some(const Linear &l, int o, Line *lines, int first, const float *x, int ldx, float *found) {
  V s[R][SOME] = {};
  each_decoded(l, o, lines, first, [&](int at, const V (&w)[SOME]) {
    for (int r = 0; r < R; r++)
      for (int j = 0; j < SOME; j++) s[r][j] = s[r][j] + w[j] * load(x + size_t(r) * ldx + at);
  });
  for (int r = 0; r < R; r++) for (int j = 0; j < SOME; j++) found[r * SOME + j] = sum(s[r][j]);
}
#endif
}  // namespace
