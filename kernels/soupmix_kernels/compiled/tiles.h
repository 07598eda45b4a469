// y = W x + bias on tile units (AMX): 16 outputs by up to 16 rows a tile, 32 numbers deep, in fp32. What a row gets is one chain
// of tile products along the inner dimension, whoever the other rows are, so its bits do not depend on how many there are.
#pragma once
#include "blocks.h"

namespace {
constexpr int SIDE = 16, DEEP = 32;
inline int filled(int in) { return (in + DEEP - 1) / DEEP * DEEP; }
#ifdef __AMX_BF16__
constexpr bool TILES = true;
struct Shape { int outs, rows, more; };  // of 16 outputs so many, and the rows of two tiles
struct alignas(64) Setting { uint8_t palette = 1, start = 0, unused[14] = {}; uint16_t bytes[16] = {}; uint8_t rows[16] = {}; };
// Registers 0 to 3 hold y: two tiles of outputs by two of rows. 4, 5: weights [outputs, 32]. 6, 7: x [16, rows, 2].
inline void set(Shape &now, Shape to) {
  if (now.outs == to.outs && now.rows == to.rows && now.more == to.more) return;
  now = to;
  Setting s;
  for (int t = 0; t < 4; t++) { s.rows[t] = to.outs; s.bytes[t] = 4 * (t % 2 ? to.more : to.rows); }
  for (int t = 4; t < 6; t++) { s.rows[t] = to.outs; s.bytes[t] = 2 * DEEP; }
  s.rows[6] = SIDE; s.bytes[6] = 4 * to.rows;
  s.rows[7] = to.more ? SIDE : 0; s.bytes[7] = 4 * to.more;
  for (int t = 1; t < 4; t += 2) if (!to.more) s.rows[t] = 0;
  asm volatile("ldtilecfg %0" ::"m"(s) : "memory");
}
inline void release() { asm volatile("tilerelease" ::: "memory"); }
// The compiler must not move what is written to memory behind these, which GCC's own intrinsics let it do.
#define SOUPMIX_ZERO(t) asm volatile("tilezero %%tmm" #t ::)
#define SOUPMIX_LOAD(t, from, apart) asm volatile("tileloadd (%0,%1,1), %%tmm" #t ::"r"(from), "r"(size_t(apart)) : "memory")
#define SOUPMIX_STORE(t, to, apart) asm volatile("tilestored %%tmm" #t ", (%0,%1,1)" ::"r"(to), "r"(size_t(apart)) : "memory")
#define SOUPMIX_DOT(y, w, x) asm volatile("tdpbf16ps %%tmm" #x ", %%tmm" #w ", %%tmm" #y ::)

template <int O, int G> inline void dot_tiles(const bf16 *w, size_t second, size_t apart, const bf16 *x, const bf16 *more, Shape s) {
  SOUPMIX_LOAD(4, w, apart);
  SOUPMIX_LOAD(6, x, 4 * s.rows);
  SOUPMIX_DOT(0, 4, 6);
  if (G > 1) { SOUPMIX_LOAD(7, more, 4 * s.more); SOUPMIX_DOT(1, 4, 7); }
  if (O > 1) { SOUPMIX_LOAD(5, w + second, apart); SOUPMIX_DOT(2, 5, 6); }
  if (O > 1 && G > 1) SOUPMIX_DOT(3, 5, 7);
}
// found [O][G][outs, rows]: O tiles of outputs, G of rows. w: the first row of weights, `ld` numbers apart. tail: those beyond the
// last whole 32, filled up [O, 16, 32], or null. next: what is read after these weights, and is asked for meanwhile, or null.
template <int O, int G>
void chain(const bf16 *w, size_t ld, int in, const bf16 *tail, const bf16 *x, Shape s, const char *next, float (*found)[SIDE * SIDE]) {
  const int whole = in / DEEP, deep = filled(in);
  const bf16 *more = x + size_t(deep) * s.rows;
  SOUPMIX_ZERO(0);
  if (G > 1) SOUPMIX_ZERO(1);
  if (O > 1) SOUPMIX_ZERO(2);
  if (O > 1 && G > 1) SOUPMIX_ZERO(3);
  for (int k = 0; k < whole; k++) {
    if (next) for (int i = 0; i < O * SIDE; i++) __builtin_prefetch(next + (size_t(k) * O * SIDE + i) * 64, 0, 2);
    dot_tiles<O, G>(w + k * DEEP, SIDE * ld, 2 * ld, x + size_t(k) * DEEP * s.rows, more + size_t(k) * DEEP * s.more, s);
  }
  if (tail) dot_tiles<O, G>(tail, SIDE * DEEP, 2 * DEEP, x + size_t(whole) * DEEP * s.rows, more + size_t(whole) * DEEP * s.more, s);
  SOUPMIX_STORE(0, found[0], 4 * s.rows);
  if (G > 1) SOUPMIX_STORE(1, found[1], 4 * s.more);
  if (O > 1) SOUPMIX_STORE(2, found[G], 4 * s.rows);
  if (O > 1 && G > 1) SOUPMIX_STORE(3, found[G + 1], 4 * s.more);
}
inline void transposed(__m512 (&v)[16]) {
  __m512 a[16];
  for (int i = 0; i < 16; i += 2) { a[i] = _mm512_unpacklo_ps(v[i], v[i + 1]); a[i + 1] = _mm512_unpackhi_ps(v[i], v[i + 1]); }
  for (int i = 0; i < 16; i += 4)
    for (int j = 0; j < 2; j++) {
      __m512d low = (__m512d)a[i + j], high = (__m512d)a[i + j + 2];
      v[i + 2 * j] = (__m512)_mm512_unpacklo_pd(low, high); v[i + 2 * j + 1] = (__m512)_mm512_unpackhi_pd(low, high);
    }
  for (int i = 0; i < 4; i++)
    for (int j = 0; j < 2; j++) {
      a[4 * i + j] = _mm512_shuffle_f32x4(v[8 * j + i], v[8 * j + 4 + i], 0x88);
      a[4 * i + 2 + j] = _mm512_shuffle_f32x4(v[8 * j + i], v[8 * j + 4 + i], 0xdd);
    }
  for (int i = 0; i < 4; i++)
    for (int j = 0; j < 2; j++) {
      v[i + 4 * j] = _mm512_shuffle_f32x4(a[4 * i + 2 * j], a[4 * i + 2 * j + 1], 0x88);
      v[i + 4 * j + 8] = _mm512_shuffle_f32x4(a[4 * i + 2 * j], a[4 * i + 2 * j + 1], 0xdd);
    }
}
// y [rows, ld] = found [outs, rows] the other way round, and the bias
inline void placed(const float *found, int outs, int rows, const float *bias, float *y, int ld) {
  if (outs == SIDE && rows == SIDE) {
    __m512 v[16], b = bias ? _mm512_loadu_ps(bias) : _mm512_setzero_ps();
    for (int i = 0; i < 16; i++) v[i] = _mm512_load_ps(found + 16 * i);
    transposed(v);
    for (int i = 0; i < 16; i++) _mm512_storeu_ps(y + size_t(i) * ld, bias ? _mm512_add_ps(v[i], b) : v[i]);
  } else
    for (int r = 0; r < rows; r++)
      for (int o = 0; o < outs; o++) y[size_t(r) * ld + o] = bias ? found[o * rows + r] + bias[o] : found[o * rows + r];
}
// O tiles of outputs from `o` on, for all rows. then: what is read next, see `chain`.
template <int O>
void outputs(Shape &now, const Linear &l, int o, int outs, const bf16 *x, int rows, const char *then, bf16 *decoded, float *y, int ldy) {
  alignas(64) float found[4][SIDE * SIDE];
  alignas(64) bf16 tail[O * SIDE * DEEP];
  const int deep = filled(l.in), whole = l.in / DEEP * DEEP;
  const bf16 *w = (const bf16 *)l.W + size_t(o) * l.ld, *rest = nullptr;
  size_t ld = l.ld;
  int in = l.in;
  if (l.kind) { decode(l, o, O * SIDE, decoded); w = decoded; ld = in = deep; }
  else if (whole < l.in) {
    memset(tail, 0, sizeof tail);
    for (int j = 0; j < (O - 1) * SIDE + outs; j++) memcpy(tail + j * DEEP, w + j * ld + whole, sizeof(bf16) * (l.in - whole));
    rest = tail;
  }
  for (int r = 0; r < rows;) {
    const int first = rows - r < SIDE ? rows - r : SIDE, left = rows - r - first, second = left < SIDE ? left : SIDE;
    const Shape s{outs, first, second};
    set(now, s);
    const bf16 *mine = x + size_t(r) * deep;
    const char *next = r ? nullptr : then;
    if (second) chain<O, 2>(w, ld, in, rest, mine, s, next, found);
    else chain<O, 1>(w, ld, in, rest, mine, s, next, found);
    const float *bias = l.bias ? l.bias + o : nullptr;
    const int G = 1 + (second > 0);
    for (int j = 0; j < O; j++) {
      const float *b = bias ? bias + j * SIDE : nullptr;
      placed(found[j * G], outs, first, b, y + size_t(r) * ldy + o + j * SIDE, ldy);
      if (second) placed(found[j * G + 1], outs, second, b, y + size_t(r + SIDE) * ldy + o + j * SIDE, ldy);
    }
    r += first + second;
  }
}
inline void by_tiles(Shape &now, const Linear &l, int o, int end, const bf16 *x, int rows, const char *then, bf16 *decoded, float *y,
                     int ldy) {
  auto ahead = [&](int next) { return l.kind ? nullptr : next < end ? (const char *)((const bf16 *)l.W + size_t(next) * l.ld) : then; };
  for (; o + 2 * SIDE <= end; o += 2 * SIDE) outputs<2>(now, l, o, SIDE, x, rows, ahead(o + 2 * SIDE), decoded, y, ldy);
  for (; o < end; o += SIDE) outputs<1>(now, l, o, end - o < SIDE ? end - o : SIDE, x, rows, ahead(o + SIDE), decoded, y, ldy);
}
// 16 rows of x as tiles read them [deep / 2, rows, 2]: numbers `from` to `from` + 32 of them, zeros beyond the inner dimension
inline void pack(const bf16 *x, int ldx, int rows, int in, int from, bf16 *to) {
  const int left = in - from;
  const __mmask32 here = left >= DEEP ? ~0u : (1u << left) - 1;
  to += size_t(from) * rows;
  __m512 v[16];
  for (int r = 0; r < rows; r++) v[r] = (__m512)_mm512_maskz_loadu_epi16(here, x + size_t(r) * ldx + from);
  if (rows == SIDE) {
    transposed(v);
    for (int i = 0; i < 16; i++) _mm512_storeu_ps((float *)to + 16 * i, v[i]);
  } else
    for (int r = 0; r < rows; r++) {
      alignas(64) float pairs[16];
      _mm512_store_ps(pairs, v[r]);
      for (int i = 0; i < 16; i++) ((float *)to)[i * rows + r] = pairs[i];
    }
}
#else
constexpr bool TILES = false;
#endif
}  // namespace
