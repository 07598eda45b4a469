// One step of a decoder: the new tokens of all rows through all layers, each row with its own soup, in one parallel region.
//
//     x = embedding;  per layer: x += m attention(norm(x)), x += m down(act(gate(norm(x))) up(norm(x)));  logits = head(norm(x))
//
// and every product is y = W x + bias + B (c * (A x)). Weights and activations that are multiplied have one type, fp32 or bf16;
// everything else, all sums included, is fp32. A row is computed by the same operations in the same order whoever its neighbours
// are, so its bits do not depend on them. A row of nobody gets no soup at all; a coefficient of zero excludes its column.
//
// One source for all instruction sets: vectors of LANES floats (GCC and Clang lower them), and products of bf16 pairs where the
// processor has them. The caller checks every number and size; this trusts them.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#ifdef _OPENMP
#include <omp.h>
#endif
#ifdef __AVX512F__
#include <immintrin.h>
#endif

extern "C" {
// W [out, in]; bias [out] or null. A [in, slices R] and B [R, out], both as they lie in memory; null where no adapter is.
// table: which of the step's coefficients. rank: that of every adapter, 0 where they differ.
struct Linear { const void *W; const float *bias; const void *A, *B; int32_t in, out, R, slices, table, rank, widths[3], unused; };
struct Layer {
  Linear qkv[3], o, gate_up[2], down;  // those of `out` 0 are not there
  const float *before_attention, *before_mlp, *query_norm, *key_norm, *cos, *sin;  // norms [features]; cos, sin [positions, rotated / 2]
  void *keys, *values;  // [slots, key heads, length, head size]
  int32_t window, unused;  // keys that a query sees, 0: all before it
};
struct Decoder {
  const Layer *layer; const void *embedding; const float *norm; Linear head;
  int32_t layers, features, heads, key_heads, size, rotated, inner, length, is_bf16, act;
  float epsilon, scale, embedding_scale, residual_scale, logit_scale;
};
// rows: new tokens, in the order of positions within a slot. live [rows]: whether the row has a soup. c: tables [rows, slices R].
// kept [keeps]: rows whose logits are computed; kept_live and kept_c belong to these. factor: the method, else `delta`.
struct Step {
  int32_t rows, keeps, threads, factor; const int32_t *tokens, *positions, *slots, *kept; const uint8_t *live, *kept_live;
  const float *const *c, *const *kept_c; float *logits, *scratch;
};
}

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
inline V activated(V a, int act) {
  if (act == 0) return a / (1.f + power_of_e(-a));  // silu
  V u = .7978845608f * (a + .044715f * a * a * a);  // gelu by tanh
  return act == 1 ? a - a / (1.f + power_of_e(2.f * u)) : a;
}
inline float activated(float a, int act) {
  if (act == 2) return .5f * a * (1.f + erff(a * .70710678f));
  return activated(all(a), act)[0];
}

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

template <class T, int O, int R> void tile(const Linear &l, int o, const T *x, int ldx, float *y, int ldy) {
  V s[O][R] = {};
  const int in = l.in, whole = in / STEP<T> * STEP<T>;
  const T *w = (const T *)l.W + size_t(o) * in;
  for (int i = 0; i < whole; i += STEP<T>)
    for (int j = 0; j < O; j++)
      for (int r = 0; r < R; r++) s[j][r] = multiply(s[j][r], w + size_t(j) * in + i, x + size_t(r) * ldx + i);
  for (int r = 0; r < R; r++)
    for (int j = 0; j < O; j++) {
      float rest = 0;
      for (int i = whole; i < in; i++) rest += wide(w[size_t(j) * in + i]) * wide(x[size_t(r) * ldx + i]);
      y[size_t(r) * ldy + o + j] = sum(s[j][r]) + rest + (l.bias ? l.bias[o + j] : 0.f);
    }
}
template <class T, int O> void rows_of(const Linear &l, int o, const T *x, int ldx, int rows, float *y, int ldy) {
  for (; rows >= 4; rows -= 4, x += 4 * size_t(ldx), y += 4 * size_t(ldy)) tile<T, O, 4>(l, o, x, ldx, y, ldy);
  if (rows == 3) tile<T, O, 3>(l, o, x, ldx, y, ldy);
  if (rows == 2) tile<T, O, 2>(l, o, x, ldx, y, ldy);
  if (rows == 1) tile<T, O, 1>(l, o, x, ldx, y, ldy);
}

// A soup in two parts. What a thread expands it has computed the base of: `block` outputs at a time, dealt out alike.
constexpr int block = 16, columns = 16;
template <class T> void base(const Linear &l, const T *x, int ldx, int rows, float *y, int ldy) {
  constexpr int O = LANES == 16 ? 4 : 2;
#pragma omp for schedule(static) nowait
  for (int b = 0; b < (l.out + block - 1) / block; b++) {
    int o = b * block, end = o + block < l.out ? o + block : l.out;
    for (; o + O <= end; o += O) rows_of<T, O>(l, o, x, ldx, rows, y, ldy);
    for (; o < end; o++) rows_of<T, 1>(l, o, x, ldx, rows, y, ldy);
  }
}
template <class T> void shrunk(const Linear &l, int at, bool factor, const T *x, const float *c, float *h) {
  constexpr int N = columns / LANES;
  const int C = l.slices * l.R;
  V even[N] = {}, odd[N] = {};
  const T *a = (const T *)l.A + at;
  int i = 0;
  for (; i + 2 <= l.in; i += 2, a += 2 * size_t(C))
    for (int n = 0; n < N; n++) {
      even[n] = even[n] + wide(x[i]) * load(a + n * LANES);
      odd[n] = odd[n] + wide(x[i + 1]) * load(a + C + n * LANES);
    }
  for (int n = 0; n < N; n++) {
    if (i < l.in) even[n] = even[n] + wide(x[i]) * load(a + n * LANES);
    V k = load(c + at + n * LANES), found = even[n] + odd[n];
    store(h + at + n * LANES, k != 0.f ? (factor ? found : found * k) : V{});
  }
}
template <class T>
void shrink(const Linear &l, bool factor, const T *x, int ldx, int rows, const uint8_t *live, const float *c, float *h) {
  const int C = l.slices * l.R;
#pragma omp for schedule(static) nowait
  for (int b = 0; b < C / columns; b++)
    for (int r = 0; r < rows; r++) {
      bool any = false;
      for (int j = 0; j < columns; j++) any |= c[size_t(r) * C + b * columns + j] != 0.f;
      if (live[r] && any) shrunk(l, b * columns, factor, x + size_t(r) * ldx, c + size_t(r) * C, h + size_t(r) * C);
      else memset(h + size_t(r) * C + b * columns, 0, 4 * columns);
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
template <class T> void expanded(const Linear &l, int o, int end, const float *h, float *y) {
  const T *B = (const T *)l.B;
  for (; o + LANES <= end; o += LANES) {
    V s = {};
    for (int k = 0; k < l.R; k++) if (h[k] != 0.f) s = s + h[k] * load(B + size_t(k) * l.out + o);
    store(y + o, load(y + o) + s);
  }
  for (; o < end; o++) {
    float s = 0;
    for (int k = 0; k < l.R; k++) if (h[k] != 0.f) s += h[k] * wide(B[size_t(k) * l.out + o]);
    y[o] += s;
  }
}
template <class T> void expand(const Linear &l, int rows, const uint8_t *live, const float *h, float *y, int ldy) {
  const int C = l.slices * l.R;
#pragma omp for schedule(static) nowait
  for (int b = 0; b < (l.out + block - 1) / block; b++)
    for (int r = 0; r < rows; r++)
      for (int s = 0, at = 0; live[r] && s < l.slices; at += l.widths[s++]) {
        int o = b * block > at ? b * block : at, end = at + l.widths[s];
        if (end > (b + 1) * block) end = (b + 1) * block;
        if (o < end) expanded<T>(l, o, end, h + size_t(r) * C + s * l.R, y + size_t(r) * ldy);
      }
}

template <class T> struct Run {
  const Decoder &d; const Step &s; float *X, *Y, *P, *hidden, *scores; T *N;
  int width;  // of a row of N and P

  // y [rows, ldy] = the products side by side, of x [rows, width]
  void products(const Linear *l, int count, const T *x, int rows, const uint8_t *live, const float *const *c, float *y, int ldy) {
    bool any = false;
    for (int r = 0; r < rows; r++) any |= live[r];
    float *h = hidden, *to = y;
    for (int j = 0; j < count; j++, to += l[j - 1].out) {
      base(l[j], x, width, rows, to, ldy);
      if (any && l[j].A) shrink(l[j], s.factor, x, width, rows, live, c[l[j].table], h);
      h += size_t(rows) * l[j].slices * l[j].R;
    }
    if (any) {
#pragma omp barrier
      h = hidden; to = y;
      for (int j = 0; j < count; j++, to += l[j - 1].out) {
        if (l[j].A && s.factor) mix(l[j], rows, c[l[j].table], h);
        if (l[j].A) expand<T>(l[j], rows, live, h, to, ldy);
        h += size_t(rows) * l[j].slices * l[j].R;
      }
    }
#pragma omp barrier
  }
  template <class To> void normed(const float *x, const float *weight, int n, To *to) {
    V s = {}; float square = 0; int i = 0;
    for (; i + LANES <= n; i += LANES) s = s + load(x + i) * load(x + i);
    for (; i < n; i++) square += x[i] * x[i];
    float k = 1.f / sqrtf((square + sum(s)) / n + d.epsilon);
    for (i = 0; i + LANES <= n; i += LANES) store(to + i, load(x + i) * k * load(weight + i));
    for (; i < n; i++) narrow(to + i, x[i] * k * weight[i]);
  }
  // x += what a half of a layer gave, then the norm before the next half
  void residual(const float *added, const float *weight) {
#pragma omp for schedule(static)
    for (int r = 0; r < s.rows; r++) {
      float *x = X + size_t(r) * d.features; const float *a = added + size_t(r) * d.features; int i = 0;
      for (; i + LANES <= d.features; i += LANES) store(x + i, load(x + i) + d.residual_scale * load(a + i));
      for (; i < d.features; i++) x[i] += d.residual_scale * a[i];
      normed(x, weight, d.features, N + size_t(r) * width);
    }
  }
  void rotate(const Layer &l, const float *norm, int position, float *x) {
    if (norm) normed(x, norm, d.size, x);
    if (!l.cos) return;
    const int half = d.rotated / 2;
    const float *c = l.cos + size_t(position) * half, *n = l.sin + size_t(position) * half;
    for (int i = 0; i < half; i++) {
      float a = x[i], b = x[i + half];
      x[i] = a * c[i] - b * n[i]; x[i + half] = b * c[i] + a * n[i];
    }
  }
  T *held(void *cache, int row, int head, int position) {
    return (T *)cache + ((size_t(s.slots[row]) * d.key_heads + head) * d.length + position) * d.size;
  }
  void place(const Layer &l, int ld) {  // queries, keys and values of all rows, before anybody attends
    const int heads = d.heads + 2 * d.key_heads;
#pragma omp for schedule(static)
    for (int each = 0; each < s.rows * heads; each++) {
      int r = each / heads, head = each % heads, key = head - d.heads, p = s.positions[r];
      float *x = Y + size_t(r) * ld + size_t(head) * d.size;
      if (key < 0) rotate(l, l.query_norm, p, x);
      else if (key < d.key_heads) rotate(l, l.key_norm, p, x);
      if (key < 0) continue;
      T *to = key < d.key_heads ? held(l.keys, r, key, p) : held(l.values, r, key - d.key_heads, p);
      for (int i = 0; i < d.size; i++) narrow(to + i, x[i]);
    }
  }
  void attend(const Layer &l, int ld, int thread) {
    const int shared = d.heads / d.key_heads;
    float *p = scores + size_t(thread) * (d.length + LANES);
#pragma omp for schedule(dynamic)
    for (int each = 0; each < s.rows * d.heads; each++) {
      int r = each / d.heads, head = each % d.heads, last = s.positions[r];
      int first = l.window && last >= l.window ? last - l.window + 1 : 0;
      attended(Y + size_t(r) * ld + size_t(head) * d.size, held(l.keys, r, head / shared, first),
               held(l.values, r, head / shared, first), last - first + 1, p, N + size_t(r) * width + size_t(head) * d.size);
    }
  }
  // softmax(q K^T scale) V of one query over `count` keys
  void attended(const float *q, const T *K, const T *Vs, int count, float *p, T *to) {
    float most = -INFINITY, total = 0;
    for (int t = 0; t < count; t++) {
      const T *k = K + size_t(t) * d.size; V sums = {}; float rest = 0; int i = 0;
      for (; i + LANES <= d.size; i += LANES) sums = sums + load(q + i) * load(k + i);
      for (; i < d.size; i++) rest += q[i] * wide(k[i]);
      p[t] = (sum(sums) + rest) * d.scale;
      most = p[t] > most ? p[t] : most;
    }
    for (int t = 0; t < count; t += LANES) store(p + t, power_of_e(load(p + t) - most));  // beyond the end there is room
    for (int t = 0; t < count; t++) total += p[t];
    for (int i = 0; i < d.size; i += LANES) {
      V o = {}; const int n = d.size - i < LANES ? d.size - i : LANES;
      for (int t = 0; t < count; t++) {
        const T *v = Vs + size_t(t) * d.size + i;
        if (n == LANES) o = o + p[t] * load(v);
        else for (int j = 0; j < n; j++) o[j] += p[t] * wide(v[j]);
      }
      o = o / total;
      if (n == LANES) store(to + i, o);
      else for (int j = 0; j < n; j++) narrow(to + i + j, o[j]);
    }
  }
  void gate(int ld) {
    constexpr int part = 64;
    const int parts = (d.inner + part - 1) / part;
#pragma omp for schedule(static)
    for (int each = 0; each < s.rows * parts; each++) {
      int r = each / parts, i = each % parts * part, end = i + part < d.inner ? i + part : d.inner;
      const float *g = Y + size_t(r) * ld, *up = g + d.inner; T *to = N + size_t(r) * width;
      for (; d.act != 2 && i + LANES <= end; i += LANES) store(to + i, activated(load(g + i), d.act) * load(up + i));
      for (; i < end; i++) narrow(to + i, activated(g[i], d.act) * up[i]);
    }
  }
  void go(int thread) {
    const int qkv = (d.heads + 2 * d.key_heads) * d.size;
#pragma omp for schedule(static)
    for (int r = 0; r < s.rows; r++) {
      const T *e = (const T *)d.embedding + size_t(s.tokens[r]) * d.features; float *x = X + size_t(r) * d.features;
      for (int i = 0; i < d.features; i++) x[i] = wide(e[i]) * d.embedding_scale;
      normed(x, d.layer[0].before_attention, d.features, N + size_t(r) * width);
    }
    for (int n = 0; n < d.layers; n++) {
      const Layer &l = d.layer[n];
      products(l.qkv, 1 + (l.qkv[1].out > 0) + (l.qkv[2].out > 0), N, s.rows, s.live, s.c, Y, qkv);
      place(l, qkv);
      attend(l, qkv, thread);
      products(&l.o, 1, N, s.rows, s.live, s.c, P, d.features);
      residual(P, l.before_mlp);
      products(l.gate_up, 1 + (l.gate_up[1].out > 0), N, s.rows, s.live, s.c, Y, 2 * d.inner);
      gate(2 * d.inner);
      products(&l.down, 1, N, s.rows, s.live, s.c, P, d.features);
      residual(P, n + 1 < d.layers ? d.layer[n + 1].before_attention : d.norm);
    }
    T *kept = (T *)P;
#pragma omp for schedule(static)
    for (int k = 0; k < s.keeps; k++) memcpy(kept + size_t(k) * width, N + size_t(s.kept[k]) * width, sizeof(T) * d.features);
    products(&d.head, 1, kept, s.keeps, s.kept_live, s.kept_c, s.logits, d.head.out);
    if (d.logit_scale == 1.f) return;
#pragma omp for schedule(static)
    for (int k = 0; k < s.keeps; k++) for (int i = 0; i < d.head.out; i++) s.logits[size_t(k) * d.head.out + i] *= d.logit_scale;
  }
};

int most(int a, int b) { return a > b ? a : b; }
struct Sizes { int width, outputs, columns; };
Sizes sizes(const Decoder &d) {  // of a row
  int columns = d.head.slices * d.head.R;
  for (int n = 0; n < d.layers; n++) {
    const Layer &l = d.layer[n]; int qkv = 0, up = 0;
    for (const Linear &j : l.qkv) qkv += j.slices * j.R;
    for (const Linear &j : l.gate_up) up += j.slices * j.R;
    columns = most(most(most(columns, qkv), most(up, l.o.slices * l.o.R)), l.down.slices * l.down.R);
  }
  int width = most(most(d.features, d.heads * d.size), d.inner);
  return {(width + 31) / 32 * 32, most((d.heads + 2 * d.key_heads) * d.size, 2 * d.inner), columns};
}
template <class T> void run(const Decoder &d, const Step &s) {
  Sizes z = sizes(d); size_t rows = most(s.rows, s.keeps);
  float *at = s.scratch;
  auto taken = [&](size_t n) { float *p = at; at += (n + 15) / 16 * 16; return p; };
  Run<T> r{d, s, taken(rows * d.features), taken(rows * z.outputs), taken(rows * z.width), taken(rows * z.columns),
           taken(size_t(s.threads) * (d.length + LANES)), (T *)taken(rows * z.width), z.width};
#pragma omp parallel num_threads(s.threads)
  {
    int thread = 0;
#ifdef _OPENMP
    thread = omp_get_thread_num();
#endif
    r.go(thread);
  }
}
}  // namespace

extern "C" {
// How many floats of scratch a step of so many rows needs.
size_t soupmix_scratch(const Decoder *d, int32_t rows, int32_t threads) {
  Sizes z = sizes(*d);
  return size_t(rows) * (d->features + z.outputs + 2 * z.width + z.columns) + size_t(threads) * (d->length + LANES) + 6 * 16;
}
void soupmix_step(const Decoder *d, const Step *s) { d->is_bf16 ? run<bf16>(*d, *s) : run<float>(*d, *s); }
}
