// y = W x + bias + B (c * (A x)) for rows that do not see each other: base products and soups, shared out among threads.
#pragma once
#include "vectors.h"

extern "C" {
// W [out, in]; bias [out] or null. A [in, slices R] and B [R, out], both as they lie in memory; null where no adapter is.
// table: which of the step's coefficients. rank: that of every adapter, 0 where they differ.
struct Linear { const void *W; const float *bias; const void *A, *B; int32_t in, out, R, slices, table, rank, widths[3], unused; };
}

namespace {
// Products. `multiply` adds the products of as many pairs as lie in one vector of weights.
template <class T> constexpr int STEP = 4 * LANES / int(sizeof(T));
inline V multiply(V sum, const float *w, const float *x) { return sum + load(w) * load(x); }
inline V multiply(V sum, const bf16 *w, const bf16 *x) {
#ifdef __AVX512BF16__
  return (V)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_loadu_si512(w), (__m512bh)_mm512_loadu_si512(x));
#else
  U a = *(const NearU *)w, b = *(const NearU *)x;
  sum = sum + (V)(a << 16) * (V)(b << 16);
  return sum + (V)(a & 0xffff0000u) * (V)(b & 0xffff0000u);
#endif
}

#ifdef __AVX512F__
// The sums of 4 x 4 vectors, added up in the order of `sum`: number r * 4 + j is that of s[j][r].
inline V sums(const V (&s)[4][4]) {
  __m512 half[8], quarter[4], two[2];
  for (int i = 0; i < 8; i++) {
    __m512 a = (__m512)s[i / 2][i % 2 * 2], b = (__m512)s[i / 2][i % 2 * 2 + 1];
    half[i] = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
  }
  for (int i = 0; i < 4; i++)
    quarter[i] = _mm512_add_ps(_mm512_shuffle_f32x4(half[2 * i], half[2 * i + 1], 0x88),
                               _mm512_shuffle_f32x4(half[2 * i], half[2 * i + 1], 0xdd));
  for (int i = 0; i < 2; i++)
    two[i] = _mm512_add_ps(_mm512_shuffle_ps(quarter[2 * i], quarter[2 * i + 1], 0x44),
                           _mm512_shuffle_ps(quarter[2 * i], quarter[2 * i + 1], 0xee));
  return (V)_mm512_add_ps(_mm512_shuffle_ps(two[0], two[1], 0x88), _mm512_shuffle_ps(two[0], two[1], 0xdd));
}
#endif
template <int O, int R> inline void sums_of(const V (&s)[O][R], float *to) {  // to [R, O]
#ifdef __AVX512F__
  if constexpr (O == 4 && R == 4) { store(to, sums(s)); return; }
#endif
  for (int r = 0; r < R; r++) for (int j = 0; j < O; j++) to[r * O + j] = sum(s[j][r]);
}
template <class T, int O, int R> void tile(const Linear &l, int o, const T *x, int ldx, float *y, int ldy) {
  V s[O][R] = {};
  const int in = l.in, whole = in / STEP<T> * STEP<T>;
  const T *w = (const T *)l.W + size_t(o) * in;
  for (int i = 0; i < whole; i += STEP<T>)
    for (int j = 0; j < O; j++)
      for (int r = 0; r < R; r++) s[j][r] = multiply(s[j][r], w + size_t(j) * in + i, x + size_t(r) * ldx + i);
  float found[R * O];
  sums_of(s, found);
  for (int r = 0; r < R; r++)
    for (int j = 0; j < O; j++) {
      float rest = 0;
      for (int i = whole; i < in; i++) rest += wide(w[size_t(j) * in + i]) * wide(x[size_t(r) * ldx + i]);
      y[size_t(r) * ldy + o + j] = found[r * O + j] + rest + (l.bias ? l.bias[o + j] : 0.f);
    }
}
template <class T, int R> void outputs(const Linear &l, int o, int end, const T *x, int ldx, float *y, int ldy) {
  constexpr int O = LANES == 16 ? 4 : 2;
  for (; o + O <= end; o += O) tile<T, O, R>(l, o, x, ldx, y, ldy);
  for (; o < end; o++) tile<T, 1, R>(l, o, x, ldx, y, ldy);
}

// A soup in two parts. What a thread expands it has computed the base of: `block` outputs at a time, dealt out alike.
constexpr int block = 32, columns = 16;
template <class T> void base(const Linear &l, const T *x, int ldx, int rows, float *y, int ldy) {
#pragma omp for schedule(static) nowait
  for (int b = 0; b < (l.out + block - 1) / block; b++) {
    const int o = b * block, end = o + block < l.out ? o + block : l.out;
    const T *a = x; float *to = y; int left = rows;
    for (; left >= 4; left -= 4, a += 4 * size_t(ldx), to += 4 * size_t(ldy)) outputs<T, 4>(l, o, end, a, ldx, to, ldy);
    if (left == 3) outputs<T, 3>(l, o, end, a, ldx, to, ldy);
    if (left == 2) outputs<T, 2>(l, o, end, a, ldx, to, ldy);
    if (left == 1) outputs<T, 1>(l, o, end, a, ldx, to, ldy);
  }
}
template <class T, int R>
void shrunk(const Linear &l, int at, bool factor, const T *x, int ldx, const uint8_t *live, const float *c, float *h) {
  constexpr int N = columns / LANES;
  const int C = l.slices * l.R;
  V even[R][N] = {}, odd[R][N] = {};
  const T *a = (const T *)l.A + at;
  int i = 0;
  for (; i + 2 <= l.in; i += 2, a += 2 * size_t(C))
    for (int n = 0; n < N; n++) {
      V one = load(a + n * LANES), two = load(a + C + n * LANES);
      for (int r = 0; r < R; r++) {
        even[r][n] = even[r][n] + wide(x[size_t(r) * ldx + i]) * one;
        odd[r][n] = odd[r][n] + wide(x[size_t(r) * ldx + i + 1]) * two;
      }
    }
  for (int r = 0; r < R; r++)
    for (int n = 0; n < N; n++) {
      if (i < l.in) even[r][n] = even[r][n] + wide(x[size_t(r) * ldx + i]) * load(a + n * LANES);
      const size_t place = size_t(r) * C + at + n * LANES;
      V k = load(c + place), found = even[r][n] + odd[r][n];
      store(h + place, live[r] ? (k != 0.f ? (factor ? found : found * k) : V{}) : V{});
    }
}
template <class T>
void shrink(const Linear &l, bool factor, const T *x, int ldx, int rows, const uint8_t *live, const float *c, float *h) {
  const int C = l.slices * l.R;
#pragma omp for schedule(static) nowait
  for (int b = 0; b < C / columns; b++)
    for (int r = 0, n; r < rows; r += n) {
      n = r + 4 <= rows ? 4 : 1;
      bool any = false;
      for (int j = 0; j < n; j++) for (int k = 0; k < columns; k++) any |= live[r + j] && c[size_t(r + j) * C + b * columns + k] != 0.f;
      const T *mine = x + size_t(r) * ldx; const float *own = c + size_t(r) * C; float *to = h + size_t(r) * C;
      if (!any) for (int j = 0; j < n; j++) memset(to + size_t(j) * C + b * columns, 0, 4 * columns);
      else if (n == 4) shrunk<T, 4>(l, b * columns, factor, mine, ldx, live + r, own, to);
      else shrunk<T, 1>(l, b * columns, factor, mine, ldx, live + r, own, to);
    }
}
void mix(const Linear &l, int rows, const float *c, float *h) {  // method `factor`: h_k <- c_k sum_l c_l h_l
  const int blocks = l.R / l.rank;
#pragma omp for schedule(static)
  for (int r = 0; r < rows; r++)
    for (int s = 0; s < l.slices; s++)
      for (int j = 0; j < l.rank; j++) {
        const float *k = c + (size_t(r) * l.slices + s) * l.R + j; float *m = h + (size_t(r) * l.slices + s) * l.R + j, shared = 0;
        for (int b = 0; b < blocks; b++) if (k[b * l.rank] != 0.f) shared += k[b * l.rank] * m[b * l.rank];
        for (int b = 0; b < blocks; b++) m[b * l.rank] = k[b * l.rank] != 0.f ? k[b * l.rank] * shared : 0.f;
      }
}
template <class T, int R, int N> void expanded(const Linear &l, int o, const float *h, int ldh, float *y, int ldy) {
  V s[R][N] = {};
  for (int k = 0; k < l.R; k++) {
    bool any = false;
    for (int r = 0; r < R; r++) any |= h[size_t(r) * ldh + k] != 0.f;  // NaN is not 0
    if (!any) continue;  // what would be added is 0
    for (int n = 0; n < N; n++) {
      V b = load((const T *)l.B + size_t(k) * l.out + o + n * LANES);
      for (int r = 0; r < R; r++) s[r][n] = s[r][n] + h[size_t(r) * ldh + k] * b;
    }
  }
  for (int r = 0; r < R; r++)
    for (int n = 0; n < N; n++) { float *to = y + size_t(r) * ldy + o + n * LANES; store(to, load(to) + s[r][n]); }
}
template <class T, int R> void expanded(const Linear &l, int o, int end, const float *h, int ldh, float *y, int ldy) {
  for (; o + 2 * LANES <= end; o += 2 * LANES) expanded<T, R, 2>(l, o, h, ldh, y, ldy);
  for (; o + LANES <= end; o += LANES) expanded<T, R, 1>(l, o, h, ldh, y, ldy);
  for (; o < end; o++)
    for (int r = 0; r < R; r++) {
      float s = 0;
      for (int k = 0; k < l.R; k++) s += h[size_t(r) * ldh + k] * wide(((const T *)l.B)[size_t(k) * l.out + o]);
      y[size_t(r) * ldy + o] += s;
    }
}
template <class T> void expand(const Linear &l, int rows, const uint8_t *live, const float *h, float *y, int ldy) {
  const int C = l.slices * l.R;
#pragma omp for schedule(static) nowait
  for (int b = 0; b < (l.out + block - 1) / block; b++)
    for (int r = 0, n; r < rows; r += n) {
      n = r + 4 <= rows && live[r] && live[r + 1] && live[r + 2] && live[r + 3] ? 4 : 1;
      for (int s = 0, at = 0; live[r] && s < l.slices; at += l.widths[s++]) {
        int o = b * block > at ? b * block : at, end = at + l.widths[s];
        if (end > (b + 1) * block) end = (b + 1) * block;
        const float *mine = h + size_t(r) * C + s * l.R; float *to = y + size_t(r) * ldy;
        if (o < end && n == 4) expanded<T, 4>(l, o, end, mine, C, to, ldy);
        else if (o < end) expanded<T, 1>(l, o, end, mine, C, to, ldy);
      }
    }
}
}  // namespace
