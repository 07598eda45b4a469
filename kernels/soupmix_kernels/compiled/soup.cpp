// y += (c * (x A^T)) B^T for rows that do not see each other, in bf16 with sums in fp32: one call a layer, all slices, all rows.
//
// Rows go in blocks of 32, so that what is computed of them stays near: h = c * (x A^T), rounded to bf16, then y. A row of nobody is
// not written, a coefficient of zero excludes its column, and a row's bits do not depend on its neighbours: it is
// summed by the same operations in the same order wherever it lies. Products are those of tile units (AMX) or of vectors of pairs.
// The caller checks every number and size; this trusts them.
#include <cstddef>
#include <cstdint>
#include <immintrin.h>
#ifdef _OPENMP
#include <omp.h>
#endif

typedef uint16_t bf16;
extern "C" {
// Factors as `packed` lays them: [columns / 32, steps, 2, 16, 16, 2]. A: C = slices R columns of `in` / 32 steps. B: of every slice
// `width` columns, filled up to whole 32, of R / 32 steps.
struct Soup { const bf16 *A, *B; int32_t in, R, slices, widths[3]; };
// c [people, C]; person [rows], outside of 0 to people - 1: nobody. h [rows, C]: scratch. ldx, ldy: from row to row.
struct SoupRows { bf16 *y; const bf16 *x; const float *c; const int32_t *person; bf16 *h; int64_t ldx, ldy; int32_t rows, people, threads; };
}

namespace {
constexpr int BLOCK = 32, STEP = 32, HALF = 16, TILE = HALF * STEP;  // TILE: numbers of 16 columns and a step
struct Block { int first, count; bool lives; };
#define SETTLED asm volatile("" ::: "memory")  // GCC does not know what the instructions of tiles read

#ifdef __AMX_BF16__
struct alignas(64) Config { uint8_t palette, start, none[14]; uint16_t bytes[16]; uint8_t rows[16]; };
// Sums 0 to 3 are of rows (0, 1) and columns (0, 1), 4 and 5 hold rows, 6 and 7 factors. No more rows are read than there are.
inline void configure(int count) {
  const uint8_t one = uint8_t(count < HALF ? count : HALF), two = uint8_t(count > HALF ? count - HALF : 1);
  Config c = {1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {one, one, two, two, one, two, HALF, HALF}};
  SETTLED;
  _tile_loadconfig(&c);
}
inline void finish() { _tile_release(); }
// found [32, 32] = x [count, 32 steps] F^T of 32 columns
inline void products(const bf16 *x, size_t ldx, int count, const bf16 *f, int steps, float *found) {
  const bool more = count > HALF;
  SETTLED;
  _tile_zero(0); _tile_zero(1);
  if (more) { _tile_zero(2); _tile_zero(3); }
  for (int k = 0; k < steps; k++, x += STEP, f += 2 * TILE) {
    _tile_loadd(4, x, 2 * ldx); _tile_loadd(6, f, 64); _tile_loadd(7, f + TILE, 64);
    _tile_dpbf16ps(0, 4, 6); _tile_dpbf16ps(1, 4, 7);
    if (more) {
      _tile_loadd(5, x + HALF * ldx, 2 * ldx);
      _tile_dpbf16ps(2, 5, 6); _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, found, 4 * BLOCK); _tile_stored(1, found + HALF, 4 * BLOCK);
  if (more) { _tile_stored(2, found + HALF * BLOCK, 4 * BLOCK); _tile_stored(3, found + HALF * BLOCK + HALF, 4 * BLOCK); }
}
#else
inline void configure(int) {}
inline void finish() {}
template <int M> inline void some(const bf16 *x, size_t ldx, const bf16 *f, int steps, float *found) {
  __m512 s[M][2];
  for (int m = 0; m < M; m++) s[m][0] = s[m][1] = _mm512_setzero_ps();
  for (int k = 0; k < steps; k++, x += STEP, f += 2 * TILE)
    for (int pair = 0; pair < HALF; pair++) {
      const __m512bh a = (__m512bh)_mm512_loadu_si512(f + pair * STEP), b = (__m512bh)_mm512_loadu_si512(f + TILE + pair * STEP);
      for (int m = 0; m < M; m++) {
        int32_t two;
        __builtin_memcpy(&two, x + m * ldx + 2 * pair, 4);
        const __m512bh mine = (__m512bh)_mm512_set1_epi32(two);
        s[m][0] = _mm512_dpbf16_ps(s[m][0], mine, a);
        s[m][1] = _mm512_dpbf16_ps(s[m][1], mine, b);
      }
    }
  for (int m = 0; m < M; m++) {
    _mm512_storeu_ps(found + m * BLOCK, s[m][0]);
    _mm512_storeu_ps(found + m * BLOCK + HALF, s[m][1]);
  }
}
inline void products(const bf16 *x, size_t ldx, int count, const bf16 *f, int steps, float *found) {
  int r = 0;
  for (; r + 8 <= count; r += 8) some<8>(x + r * ldx, ldx, f, steps, found + r * BLOCK);
  for (; r + 4 <= count; r += 4) some<4>(x + r * ldx, ldx, f, steps, found + r * BLOCK);
  for (; r < count; r++) some<1>(x + r * ldx, ldx, f, steps, found + r * BLOCK);
}
#endif

inline bool somebody(const SoupRows &s, int row) { return s.person[row] >= 0 && s.person[row] < s.people; }
inline Block block(const SoupRows &s, int number) {
  const int first = number * BLOCK, count = s.rows - first < BLOCK ? s.rows - first : BLOCK;
  bool lives = false;
  for (int r = first; r < first + count; r++) lives |= somebody(s, r);
  return {first, count, lives};
}
inline void rounded(bf16 *to, __m512 x, __mmask16 kept) { _mm256_mask_storeu_epi16(to, kept, (__m256i)_mm512_cvtneps_pbh(x)); }

// h of one block and 32 columns of all slices' C
inline void shrink(const Soup &l, const SoupRows &s, const Block &b, int at, float *found) {
  const int C = l.slices * l.R, steps = l.in / STEP;
  products(s.x + b.first * s.ldx, s.ldx, b.count, l.A + size_t(at) * 2 * TILE * steps, steps, found);
  for (int r = 0; r < b.count; r++) {
    const int row = b.first + r;
    bf16 *to = s.h + size_t(row) * C + at * BLOCK;
    for (int n = 0; n < BLOCK; n += HALF) {
      const __m512 c = somebody(s, row) ? _mm512_loadu_ps(s.c + size_t(s.person[row]) * C + at * BLOCK + n) : _mm512_setzero_ps();
      const __mmask16 counts = _mm512_cmp_ps_mask(c, _mm512_setzero_ps(), _CMP_NEQ_UQ);
      rounded(to + n, _mm512_maskz_mul_ps(counts, c, _mm512_loadu_ps(found + r * BLOCK + n)), 0xffff);
    }
  }
}
// y of one block and 32 outputs of one slice; `left` of them are there
inline void expand(const Soup &l, const SoupRows &s, const Block &b, const bf16 *f, int slice, bf16 *y, int left, float *found) {
  const int C = l.slices * l.R;
  products(s.h + size_t(b.first) * C + slice * l.R, C, b.count, f, l.R / STEP, found);
  for (int r = 0; r < b.count; r++) {
    if (!somebody(s, b.first + r)) continue;
    bf16 *to = y + (b.first + r) * s.ldy;
    for (int n = 0; n < BLOCK && n < left; n += HALF) {
      const __mmask16 kept = left - n >= HALF ? 0xffff : (1 << (left - n)) - 1;
      const __m512 was = (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(kept, to + n)), 16);
      rounded(to + n, _mm512_add_ps(was, _mm512_loadu_ps(found + r * BLOCK + n)), kept);
    }
  }
}
// Work(block, number) for a thread's share of blocks and numbers, the numbers of one block together.
template <class F> void shared(const SoupRows &s, int numbers, int thread, int threads, F work) {
  const int64_t blocks = (s.rows + BLOCK - 1) / BLOCK, all = blocks * numbers;
  int last = -1;
  Block b = {};
  for (int64_t each = all * thread / threads; each < all * (thread + 1) / threads; each++) {
    if (each / numbers != last) {
      last = int(each / numbers);
      b = block(s, last);
      if (b.lives) configure(b.count);
    }
    if (b.lives) work(b, int(each % numbers));
  }
}
void by(const Soup &l, const SoupRows &s, int thread, int threads) {
  alignas(64) float found[BLOCK * BLOCK];
  shared(s, l.slices * l.R / BLOCK, thread, threads, [&](const Block &b, int at) { shrink(l, s, b, at, found); });
#pragma omp barrier
  int parts = 0, before[4] = {0, 0, 0, 0};
  for (int j = 0; j < l.slices; j++) before[j + 1] = parts += (l.widths[j] + BLOCK - 1) / BLOCK;
  shared(s, parts, thread, threads, [&](const Block &b, int part) {
    int slice = 0;
    bf16 *y = s.y;
    while (part >= before[slice + 1]) y += l.widths[slice++];
    const int at = (part - before[slice]) * BLOCK;
    expand(l, s, b, l.B + size_t(part) * BLOCK * l.R, slice, y + at, l.widths[slice] - at, found);
  });
  finish();
}
}  // namespace

extern "C" void soupmix_soup(const Soup *l, const SoupRows *s) {
  if (s->threads < 2) { by(*l, *s, 0, 1); return; }
#pragma omp parallel num_threads(s->threads)
  {
#ifdef _OPENMP
    by(*l, *s, omp_get_thread_num(), omp_get_num_threads());
#else
    by(*l, *s, 0, 1);
#endif
  }
}
