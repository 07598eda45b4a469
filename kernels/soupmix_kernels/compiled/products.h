// y = W x + bias + B (c * (A x)) for rows that do not see each other: base products and soups, shared out among threads.
#pragma once
#include "tiles.h"
#include <type_traits>

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
#elif defined(__AVX2__)
// The sums of 8 vectors, added up in the order of `sum`.
inline V sums(const V *s) {
  __m256 half[4], two[2];
  for (int i = 0; i < 4; i++) {
    __m256 a = (__m256)s[i], b = (__m256)s[i + 4];
    half[i] = _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
  }
  for (int i = 0; i < 2; i++)
    two[i] = _mm256_add_ps(_mm256_shuffle_ps(half[2 * i], half[2 * i + 1], 0x44), _mm256_shuffle_ps(half[2 * i], half[2 * i + 1], 0xee));
  return (V)_mm256_add_ps(_mm256_shuffle_ps(two[0], two[1], 0x88), _mm256_shuffle_ps(two[0], two[1], 0xdd));
}
#endif
template <int O, int R> inline void sums_of(const V (&s)[O][R], float *to) {  // to [R, O]
  int first = 0;
#ifdef __AVX512F__
  if constexpr (O == 4 && R == 4) { store(to, sums(s)); return; }
#elif defined(__AVX2__)
  for (; first + 8 <= O * R; first += 8) {
    V eight[8];
    for (int i = 0; i < 8; i++) eight[i] = s[(first + i) % O][(first + i) / O];
    store(to + first, sums(eight));
  }
#endif
  for (; first < O * R; first++) to[first] = sum(s[first % O][first / O]);
}
// found [R, O]: products of O rows of weights, `apart` of each other, and R rows of x. Summed alike whatever O and R are.
template <class T, int O, int R> void dots(const T *w, size_t apart, int in, const T *x, int ldx, float *found) {
  V s[O][R] = {};
  const int whole = in / STEP<T> * STEP<T>;
  for (int i = 0; i < whole; i += STEP<T>)
    for (int j = 0; j < O; j++)
      for (int r = 0; r < R; r++) s[j][r] = multiply(s[j][r], w + j * apart + i, x + size_t(r) * ldx + i);
  sums_of(s, found);
  for (int r = 0; r < R; r++)
    for (int j = 0; j < O; j++) {
      float rest = 0;
      for (int i = whole; i < in; i++) rest += wide(w[j * apart + i]) * wide(x[size_t(r) * ldx + i]);
      found[r * O + j] += rest;
    }
}

// A processor reads ahead in lines that follow each other, and in several such streams, if they lie far from each other: side
// by side, as neighbouring rows of weights do, they are read at half the speed. So a thread has outputs that follow each other,
// and computes one of each quarter of them at a time.
constexpr int STREAMS = LANES == 16 ? 4 : 2, UNIT = 16;  // outputs that no two threads share
struct Share { int from, end; };
inline Share share(int out, int thread, int threads) {
  const int blocks = (out + UNIT - 1) / UNIT, end = blocks * (thread + 1) / threads * UNIT;
  return {blocks * thread / threads * UNIT, end < out ? end : out};
}
template <class F> void by_rows(int rows, F f) {  // f(first, how many) of up to four rows each
  int r = 0;
  for (; r + 4 <= rows; r += 4) f(r, std::integral_constant<int, 4>());
  if (rows - r == 3) f(r, std::integral_constant<int, 3>());
  if (rows - r == 2) f(r, std::integral_constant<int, 2>());
  if (rows - r == 1) f(r, std::integral_constant<int, 1>());
}
template <class F> void by_threes(int rows, F f) {  // the same of up to three; two and two rather than three and one
  int r = 0;
  for (; rows - r > 4 || rows - r == 3; r += 3) f(r, std::integral_constant<int, 3>());
  for (; r + 2 <= rows; r += 2) f(r, std::integral_constant<int, 2>());
  if (r < rows) f(r, std::integral_constant<int, 1>());
}
// y of O outputs from `o` on, `apart` of each other, for R rows: w is the first one's weights, `ld` numbers from the next.
template <class T, int O, int R>
void outputs_of(const Linear &l, const T *w, size_t ld, int o, int apart, const T *x, int ldx, float *y, int ldy) {
  float found[R * O];
  dots<T, O, R>(w, ld, l.in, x, ldx, found);
  for (int r = 0; r < R; r++)
    for (int j = 0; j < O; j++) y[size_t(r) * ldy + o + j * apart] = found[r * O + j] + (l.bias ? l.bias[o + j * apart] : 0.f);
}
// y of outputs `o` to `o` + count and every `apart` after them, by weights [O, in], rows `ld` apart, the first that of output `from`.
template <class T, int O>
void base(const Linear &l, const T *W, size_t ld, int from, int o, int count, int apart, const T *x, int ldx, int rows, float *y, int ldy) {
  by_rows(rows, [&](int first, auto n) {
    for (int at = o; at < o + count; at++)
      outputs_of<T, O, n>(l, W + size_t(at - from) * ld, apart * ld, at, apart, x + size_t(first) * ldx, ldx, y + size_t(first) * ldy, ldy);
  });
}
template <class T> void base(const Linear &l, Share mine, const T *x, int ldx, int rows, T *decoded, float *y, int ldy) {
  if constexpr (sizeof(T) == 2) if (l.kind) {  // 16 outputs at a time, which lie near once they are decoded
    const size_t ld = (l.in + 31) / 32 * 32;
    for (int o = mine.from; o < mine.end; o += UNIT) {
      const int count = mine.end - o < UNIT ? mine.end - o : UNIT, fours = count / STREAMS * STREAMS;
      decode(l, o, UNIT, decoded);
      for (int j = 0; j < fours; j += STREAMS) base<T, STREAMS>(l, decoded, ld, o, o + j, 1, 1, x, ldx, rows, y, ldy);
      base<T, 1>(l, decoded, ld, o, o + fours, count - fours, 0, x, ldx, rows, y, ldy);
    }
    return;
  }
  constexpr int together = 8;  // outputs of a stream that all rows go through, while their weights are near
  const int apart = (mine.end - mine.from) / STREAMS, left = mine.from + STREAMS * apart;
  const T *W = (const T *)l.W;
  for (int i = 0; i < apart; i += together)
    base<T, STREAMS>(l, W, l.ld, 0, mine.from + i, apart - i < together ? apart - i : together, apart, x, ldx, rows, y, ldy);
  base<T, 1>(l, W, l.ld, 0, left, mine.end - left, 0, x, ldx, rows, y, ldy);
}


// Of many rows, where a processor has no products of bf16 pairs, and of blocks that are decoded to fp32: both sides in fp32, made
// once. `widened` puts the even numbers of two vectors before the odd ones, so that sums are added up in the order of `multiply`.
constexpr int MANY = 16, PANEL = UNIT / 2;  // rows; outputs whose weights are widened at once
inline void widened(const bf16 *from, int n, float *to) {
  int i = 0;
  for (; i < n; i += 2 * LANES) {
    U both = *(const NearU *)(from + i);
    store(to + i, (V)(both << 16)); store(to + i + LANES, (V)(both & 0xffff0000u));
  }
  for (; i % 32; i += LANES) store(to + i, V{});  // as blocks are
}
inline bool is_widened(const Linear &l, int rows) {
#ifdef __AVX512BF16__
  return false;
#elif defined(SOUPMIX_SPREADS)
  return (rows >= MANY || l.kind) && l.in % STEP<bf16> == 0;
#else
  return rows >= MANY && l.in % STEP<bf16> == 0;
#endif
}
// y of outputs `o` to `end` by weights that are near [end - o, in filled up].
inline void near(const Linear &l, const float *w, int o, int end, const float *x, int ldx, int rows, float *y, int ldy) {
  const size_t ld = (l.in + 31) / 32 * 32;
  by_threes(rows, [&](int first, auto n) {
    constexpr int O = n == 1 ? 8 : 4;  // so many sums do not wait for each other, and have a register each
    const float *seen = x + size_t(first) * ldx;
    float *to = y + size_t(first) * ldy;
    int at = o;
    for (; at + O <= end; at += O) outputs_of<float, O, n>(l, w + (at - o) * ld, ld, at, 1, seen, ldx, to, ldy);
    for (; at < end; at++) outputs_of<float, 1, n>(l, w + (at - o) * ld, ld, at, 0, seen, ldx, to, ldy);
  });
}
#ifdef SOUPMIX_SPREADS
inline void base_of_blocks(const Linear &l, Share mine, const float *x, int ldx, int rows, float *room, float *y, int ldy) {
  const size_t ld = (l.in + 31) / 32 * 32;
  Line *lines = (Line *)room;
  float *w = room + ld;
  for (int o = mine.from; o < mine.end; o += SOME) {
    const int end = mine.end - o < SOME ? mine.end : o + SOME, first = o % UNIT;
    if (rows > 2) {
      decode_some(l, o - first, lines, first, w);
      near(l, w, o, end, x, ldx, rows, y, ldy);
      continue;
    }
    float found[2 * SOME];
    (rows == 1 ? dot_some<1> : dot_some<2>)(l, o - first, lines, first, x, ldx, found);
    for (int r = 0; r < rows; r++)
      for (int at = o; at < end; at++) y[size_t(r) * ldy + at] = found[r * SOME + at - o] + (l.bias ? l.bias[at] : 0.f);
  }
}
#endif
// x [rows, ldx] as `widened` makes it, filled up with zeros; room: for UNIT rows of weights in fp32
inline void base_widened(const Linear &l, Share mine, const float *x, int ldx, int rows, float *room, float *y, int ldy) {
#ifdef SOUPMIX_SPREADS
  if (l.kind) return base_of_blocks(l, mine, x, ldx, rows, room, y, ldy);
#endif
  const size_t ld = (l.in + 31) / 32 * 32;
  bf16 *decoded = (bf16 *)room;
  float *panel = room + PANEL * ld;
  for (int o = mine.from; o < mine.end; o += PANEL) {
    const int end = mine.end - o < PANEL ? mine.end : o + PANEL;
    if (l.kind && o % UNIT == 0) decode(l, o, UNIT, decoded);
    for (int at = o; at < end; at++)
      widened(l.kind ? decoded + at % UNIT * ld : (const bf16 *)l.W + size_t(at) * l.ld, l.in, panel + (at - o) * ld);
    near(l, panel, o, end, x, ldx, rows, y, ldy);
  }
}

constexpr int columns = 8, TILE = 32;
// A soup in two parts, 8 columns of factors ("panel") at a time. live [rows, panels]: which panels have a coefficient that is
// not 0. Of up to four rows all have their numbers in h, or none has.
inline bool any(const uint8_t *live, int panels, int p, int first, int count) {
  bool found = false;
  for (int r = first; r < first + count; r++) found |= live[size_t(r) * panels + p];
  return found;
}
template <class T>
void shrink(const Linear &l, bool factor, const T *x, int ldx, int rows, const uint8_t *live, const float *c, float *h, int thread,
            int threads) {
  constexpr int O = STREAMS, apart = columns / O;
  const int C = l.slices * l.R, panels = C / columns;
  for (int p = 0, turn = 0; p < panels; p++) {
    if (!any(live, panels, p, 0, rows) || turn++ % threads != thread) continue;
    const char *panel = (const char *)((const T *)l.A + size_t(p) * columns * l.in);
    for (size_t i = 0; i < sizeof(T) * columns * l.in; i += 64) __builtin_prefetch(panel + i);
    by_rows(rows, [&](int first, auto n) {
      constexpr int R = n;
      if (!any(live, panels, p, first, R)) return;
      for (int at = p * columns; at < p * columns + apart; at++) {
        float found[R * O];
        dots<T, O, R>((const T *)l.A + size_t(at) * l.in, size_t(apart) * l.in, l.in, x + size_t(first) * ldx, ldx, found);
        for (int r = 0; r < R; r++)
          for (int j = 0; j < O; j++) {
            const size_t place = size_t(first + r) * C + at + j * apart;
            const bool counts = live[size_t(first + r) * panels + p] && c[place] != 0.f;
            h[place] = counts ? (factor ? found[r * O + j] : found[r * O + j] * c[place]) : 0.f;
          }
      }
    });
  }
}
// Method `factor`: h_k <- c_k sum_l c_l h_l.
inline void mix(const Linear &l, int rows, const uint8_t *live, const float *c, float *h, int thread, int threads) {
  const int blocks = l.R / l.rank, panels = l.slices * l.R / columns;
  for (int r = thread; r < rows; r += threads)
    for (int s = 0; s < l.slices; s++)
      for (int j = 0; j < l.rank; j++) {
        const size_t at = (size_t(r) * l.slices + s) * l.R + j;
        auto counts = [&](int b) {
          return live[size_t(r) * panels + (s * l.R + j + b * l.rank) / columns] && c[at + b * l.rank] != 0.f;
        };
        float shared = 0;
        for (int b = 0; b < blocks; b++) if (counts(b)) shared += c[at + b * l.rank] * h[at + b * l.rank];
        for (int b = 0; b < blocks; b++) if (counts(b)) h[at + b * l.rank] = c[at + b * l.rank] * shared;
      }
}
// y [R, at to at + TILE] += h [R, 8] B [8, TILE], but for rows that have nothing of it: not even the sign of a zero is theirs.
// Beyond `left` outputs there is no y.
template <class T, int R> void expanded(const T *B, const float *h, int ldh, const bool *counts, int left, float *y, int ldy) {
  constexpr int N = 2;
  for (int o = 0; o < left; o += N * LANES, B += N * LANES, y += N * LANES) {
    V s[R][N] = {};
    for (int k = 0; k < columns; k++)
      for (int n = 0; n < N; n++) {
        V b = load(B + size_t(k) * TILE + n * LANES);
        for (int r = 0; r < R; r++) s[r][n] = s[r][n] + h[size_t(r) * ldh + k] * b;
      }
    for (int r = 0; r < R; r++) {
      float *to = y + size_t(r) * ldy;
      for (int n = 0; counts[r] && n < N; n++)
        if (o + (n + 1) * LANES <= left) store(to + n * LANES, load(to + n * LANES) + s[r][n]);
        else for (int i = 0; o + n * LANES + i < left; i++) to[n * LANES + i] += s[r][n][i];
    }
  }
}
template <class T>
void expand(const Linear &l, int rows, const uint8_t *live, const float *h, float *y, int ldy, int thread, int threads) {
  const int panels = l.R / columns, C = l.slices * l.R;
  const T *B = (const T *)l.B;
  for (int s = 0, at = 0; s < l.slices; at += l.widths[s++]) {
    const int tiles = (l.widths[s] + TILE - 1) / TILE, from = tiles * thread / threads, end = tiles * (thread + 1) / threads;
    for (int p = 0; p < panels; p++, B += size_t(tiles) * columns * TILE)
      by_rows(rows, [&](int first, auto n) {
        constexpr int R = n;
        const int place = s * panels + p;
        if (!any(live, C / columns, place, first, R)) return;
        bool counts[R];
        for (int r = 0; r < R; r++) counts[r] = live[size_t(first + r) * (C / columns) + place];
        for (int t = from; t < end; t++) {
          const int left = l.widths[s] - t * TILE;
          expanded<T, R>(B + size_t(t) * columns * TILE, h + size_t(first) * C + place * columns, C, counts, left < TILE ? left : TILE,
                         y + size_t(first) * ldy + at + t * TILE, ldy);
        }
      });
  }
}
}  // namespace
