// Vectors of LANES floats, on every processor, and what is computed of them between products.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#ifdef __AVX2__
#include <immintrin.h>
#endif

namespace {
#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif
typedef float V __attribute__((vector_size(4 * LANES)));
typedef uint32_t U __attribute__((vector_size(4 * LANES)));
typedef float Near __attribute__((vector_size(4 * LANES), aligned(4), may_alias));  // anywhere in memory
typedef uint32_t NearU __attribute__((vector_size(4 * LANES), aligned(2), may_alias));
typedef uint16_t H __attribute__((vector_size(2 * LANES)));
typedef uint16_t NearH __attribute__((vector_size(2 * LANES), aligned(2), may_alias));
typedef uint16_t bf16;

inline float wide(float x) { return x; }
inline float wide(bf16 x) { uint32_t u = uint32_t(x) << 16; float f; memcpy(&f, &u, 4); return f; }
inline V load(const float *p) { return *(const Near *)p; }
inline V load(const bf16 *p) { return (V)(__builtin_convertvector(*(const NearH *)p, U) << 16); }
inline void store(float *p, V x) { *(Near *)p = x; }
inline void store(bf16 *p, V x) {  // to the nearest, ties to even; NaN stays NaN
#ifdef __AVX512BF16__
  _mm256_storeu_si256((__m256i *)p, (__m256i)_mm512_cvtneps_pbh((__m512)x));
  return;
#endif
  U u = (U)x, even = u + 0x7fff + ((u >> 16) & 1), number = (U)(x == x);
  *(NearH *)p = __builtin_convertvector(((even & number) | ((u | 0x400000) & ~number)) >> 16, H);
}
inline void narrow(float *p, float x) { *p = x; }
inline void narrow(bf16 *p, float x) {
  uint32_t u; memcpy(&u, &x, 4);
  *p = bf16((x == x ? u + 0x7fff + ((u >> 16) & 1) : u | 0x400000) >> 16);
}
inline V all(float x) { return x - V{}; }
inline float sum(V x) {
#ifdef __AVX512F__
  return _mm512_reduce_add_ps((__m512)x);
#else
  for (int half = LANES / 2; half; half /= 2) for (int i = 0; i < half; i++) x[i] += x[i + half];
  return x[0];
#endif
}
inline V power_of_e(V x) {  // Cephes' expf, its argument kept within [-87, 88]; NaN stays NaN
  x = x < -87.f ? all(-87.f) : x; x = x > 88.f ? all(88.f) : x;
  V n = (x * 1.44269504f + 12582912.f) - 12582912.f;
  V r = x - n * .693359375f; r = r + n * 2.12194440e-4f;
  V p = all(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f; p = p * r + 8.3334519073e-3f; p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f; p = p * r + 5.0000001201e-1f; p = p * r * r + r + 1.f;
  typedef int32_t I __attribute__((vector_size(4 * LANES)));
  return p * (V)((__builtin_convertvector(n, I) + 127) << 23);
}
inline V tanh_of(V x) {  // Cephes' tanhf; NaN stays NaN
  V z = x * x;
  V near = ((((-5.70498872745e-3f * z + 2.06390887954e-2f) * z - 5.37397155531e-2f) * z + 1.33314422036e-1f) * z - 3.33332819422e-1f) * z * x + x;
  V size = (V)((U)x & 0x7fffffffu), far = 1.f - 2.f / (power_of_e(size + size) + 1.f);
  return size < .625f ? near : (V)((U)far | ((U)x & 0x80000000u));
}
inline float tanh_of(float x) { return tanh_of(all(x))[0]; }
inline V activated(V a, int act) {
  if (act == 0) return a / (1.f + power_of_e(-a));  // silu
  V u = .7978845608f * (a + .044715f * a * a * a);  // gelu by tanh
  return act == 1 ? a - a / (1.f + power_of_e(2.f * u)) : a;
}
inline float activated(float a, int act) {
  if (act == 2) return .5f * a * (1.f + erff(a * .70710678f));
  return activated(all(a), act)[0];
}
}  // namespace
