// One step of a decoder: the new tokens of all rows through all layers, each row with its own soup, in one parallel region.
//
//     x = embedding;  per layer: x += m attention(norm(x)), x += m down(act(gate(norm(x))) up(norm(x)));  logits = head(norm(x))
//
// where a layer may have norms of what it adds, too. Scores and logits may be capped: cap tanh(x / cap).
//
// and every product is y = W x + bias + B (c * (A x)). Weights and activations that are multiplied have one type, fp32 or bf16;
// everything else, all sums included, is fp32. A row is computed by the same operations in the same order whoever its neighbours
// are, so its bits do not depend on them. A row of nobody gets no soup at all; a coefficient of zero excludes its column.
//
// One source for all instruction sets: vectors of LANES floats (GCC and Clang lower them), and products of bf16 pairs where the
// processor has them. The caller checks every number and size; this trusts them.
#ifdef _OPENMP
#include <omp.h>
#endif
#include <vector>
#include "products.h"

extern "C" {
struct Layer {
  Linear qkv[3], o, gate_up[2], down;  // those of `out` 0 are not there
  const float *before_attention, *after_attention, *before_mlp, *after_mlp;  // norms [features]; those after may be null
  const float *query_norm, *key_norm, *cos, *sin;  // norms [size] or null; cos, sin [positions, rotated / 2] or null
  void *keys, *values;  // [slots, key heads, length, head size]
  int32_t window, unused;  // keys that a query sees, 0: all before it
};
struct Decoder {
  const Layer *layer; const void *embedding; const float *norm; Linear head;
  int32_t layers, features, heads, key_heads, size, rotated, inner, length, is_bf16, act;
  float epsilon, scale, embedding_scale, residual_scale, logit_scale, score_cap, logit_cap;  // a cap of 0 is none
};
// rows: new tokens, in the order of positions within a slot. live [rows]: whether the row has a soup. c: tables [rows, slices R].
// kept [keeps]: rows whose logits are computed; kept_live and kept_c belong to these. factor: the method, else `delta`.
struct Step {
  int32_t rows, keeps, threads, factor; const int32_t *tokens, *positions, *slots, *kept; const uint8_t *live, *kept_live;
  const float *const *c, *const *kept_c; float *logits, *scratch;
};
}

namespace {
using Live = std::vector<std::vector<uint8_t>>;  // of every table: which panels of a row have a coefficient [rows, panels]
template <class T> struct Run {
  const Decoder &d; const Step &s; const Live &live, &kept_live; float *X, *Y, *P, *hidden, *scores; T *N, *M, *packed, *decoded;
  int width, thread, threads;  // width: of a row of N, M and P
  bool alone;  // one row, of which every thread has its own X, M and what is read anew, so that nobody waits for who makes them
#ifdef __AMX_BF16__
  Shape tiles{0, 0, 0};
#endif

  // What `count` products read instead of x: x as tile units do, or in fp32 where one `is_widened`. Made by all threads for all.
  const T *read_anew(const Linear *l, int count, const T *x, int rows) {
    const int in = l->in;
#ifdef __AMX_BF16__
    if constexpr (sizeof(T) == 2) {
      if (rows == 1 && in % DEEP == 0) return x;
      const int groups = (rows + SIDE - 1) / SIDE, parts = filled(in) / DEEP;
#pragma omp for schedule(static)
      for (int each = 0; each < groups * parts; each++) {
        const int r = each / parts * SIDE, count = rows - r < SIDE ? rows - r : SIDE;
        pack(x + size_t(r) * width, width, count, in, each % parts * DEEP, packed + size_t(r) * filled(in));
      }
      return packed;
    }
#endif
    bool any = false;
    for (int j = 0; j < count; j++) any |= is_widened(l[j], rows);
    if constexpr (sizeof(T) == 2) if (any)
      each_of(rows, [&](int r) { widened(x + size_t(r) * width, in, (float *)packed + size_t(r) * width); });
    return packed;
  }
  const char *begin(const Linear *l) {  // of this thread's weights
    return l && !l->kind ? (const char *)((const T *)l->W + size_t(share(l->out, thread, threads).from) * l->ld) : nullptr;
  }
  // then: the product after this one, or null
  void base_of(const Linear &l, const T *x, const T *seen, int rows, const Linear *then, float *y, int ldy) {
    const Share mine = share(l.out, thread, threads);
#ifdef __AMX_BF16__
    if constexpr (sizeof(T) == 2) { by_tiles(tiles, l, mine.from, mine.end, seen, rows, begin(then), decoded, y, ldy); return; }
#endif
    if constexpr (sizeof(T) == 2) if (is_widened(l, rows)) { base_widened(l, mine, (const float *)seen, width, rows, (float *)decoded, y, ldy); return; }
    base(l, mine, x, width, rows, decoded, y, ldy);
  }

  // y [rows, ldy] = the products side by side, of x [rows, width]. then: the product after them, or null.
  void products(const Linear *l, int count, const T *x, int rows, const Live &live, const float *const *c, const Linear *then, float *y,
                int ldy) {
    const T *seen = read_anew(l, count, x, rows);
    float *h = hidden, *to = y;
    for (int j = 0; j < count; j++, to += l[j - 1].out) {
      base_of(l[j], x, seen, rows, j + 1 < count ? l + j + 1 : then, to, ldy);
      if (live.size() && l[j].A) shrink(l[j], s.factor, x, width, rows, live[l[j].table].data(), c[l[j].table], h, thread, threads);
      h += size_t(rows) * l[j].slices * l[j].R;
    }
    if (live.size()) {
#pragma omp barrier
      h = hidden;
      for (int j = 0; j < count && s.factor; h += size_t(rows) * l[j].slices * l[j].R, j++)
        if (l[j].A) mix(l[j], rows, live[l[j].table].data(), c[l[j].table], h, thread, threads);
      if (s.factor) {
#pragma omp barrier
      }
      h = hidden; to = y;
      for (int j = 0; j < count; h += size_t(rows) * l[j].slices * l[j].R, to += l[j].out, j++)
        if (l[j].A) expand<T>(l[j], rows, live[l[j].table].data(), h, to, ldy, thread, threads);
    }
#pragma omp barrier
  }
  float one_over_size(const float *x, int n) {  // of what a norm makes of size 1
    V s = {}; float square = 0; int i = 0;
    for (; i + LANES <= n; i += LANES) s = s + load(x + i) * load(x + i);
    for (; i < n; i++) square += x[i] * x[i];
    return 1.f / sqrtf((square + sum(s)) / n + d.epsilon);
  }
  template <class To> void normed(const float *x, const float *weight, int n, To *to) {
    const float k = one_over_size(x, n);
    int i;
    for (i = 0; i + LANES <= n; i += LANES) store(to + i, load(x + i) * k * load(weight + i));
    for (; i < n; i++) narrow(to + i, x[i] * k * weight[i]);
  }
  template <class F> void each_of(int rows, F f) {
    if (alone) { f(0); return; }
#pragma omp for schedule(static)
    for (int r = 0; r < rows; r++) f(r);
  }
  // x += what a half of a layer gave, after its own norm or none, then the norm before the next half
  void residual(const float *added, const float *after, const float *weight) {
    each_of(s.rows, [&](int r) {
      float *x = X + size_t(r) * d.features; const float *a = added + size_t(r) * d.features; int i = 0;
      if (after) {
        const float k = one_over_size(a, d.features);
        for (; i + LANES <= d.features; i += LANES) store(x + i, load(x + i) + d.residual_scale * (load(a + i) * k * load(after + i)));
        for (; i < d.features; i++) x[i] += d.residual_scale * (a[i] * k * after[i]);
      }
      for (; i + LANES <= d.features; i += LANES) store(x + i, load(x + i) + d.residual_scale * load(a + i));
      for (; i < d.features; i++) x[i] += d.residual_scale * a[i];
      normed(x, weight, d.features, M + size_t(r) * width);
    });
  }
  void rotate(const Layer &l, const float *norm, int position, float *x) {
    if (norm) normed(x, norm, d.size, x);
    if (!l.cos) return;
    const int half = d.rotated / 2;
    const float *c = l.cos + size_t(position) * half, *n = l.sin + size_t(position) * half;
    int i = 0;
    for (; i + LANES <= half; i += LANES) {
      V a = load(x + i), b = load(x + i + half), u = load(c + i), v = load(n + i);
      store(x + i, a * u - b * v); store(x + i + half, b * u + a * v);
    }
    for (; i < half; i++) {
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
      int i = 0;
      for (; i + LANES <= d.size; i += LANES) store(to + i, load(x + i));
      for (; i < d.size; i++) narrow(to + i, x[i]);
    }
  }
  void attend(const Layer &l, int ld) {  // up to four queries that share their keys at once
    const int shared = d.heads / d.key_heads, parts = (shared + 3) / 4;
    float *p = scores + 4 * size_t(thread) * (d.length + LANES);
#pragma omp for schedule(dynamic)
    for (int each = 0; each < s.rows * d.key_heads * parts; each++) {
      int r = each / (d.key_heads * parts), key = each / parts % d.key_heads, head = key * shared + each % parts * 4;
      int count = (key + 1) * shared - head, last = s.positions[r];
      int first = l.window && last >= l.window ? last - l.window + 1 : 0;
      const T *K = held(l.keys, r, key, first), *W = held(l.values, r, key, first);
      const float *q = Y + size_t(r) * ld + size_t(head) * d.size; T *to = N + size_t(r) * width + size_t(head) * d.size;
      if (count >= 4) attended<4>(q, K, W, last - first + 1, p, to);
      else if (count == 3) attended<3>(q, K, W, last - first + 1, p, to);
      else if (count == 2) attended<2>(q, K, W, last - first + 1, p, to);
      else attended<1>(q, K, W, last - first + 1, p, to);
    }
  }
  // p [Q, length + LANES] = scores of Q queries and n keys
  template <int Q, int n> void score(const float *q, const T *k, float *p) {
    V s[n][4] = {};
    const int whole = d.size / LANES * LANES;
    for (int i = 0; i < whole; i += LANES)
      for (int t = 0; t < n; t++) {
        V held = load(k + size_t(t) * d.size + i);
        for (int j = 0; j < Q; j++) s[t][j] = s[t][j] + load(q + size_t(j) * d.size + i) * held;
      }
    float found[4 * n];
    sums_of<n, 4>(s, found);
    for (int j = 0; j < Q; j++)
      for (int t = 0; t < n; t++) {
        float rest = 0;
        for (int i = whole; i < d.size; i++) rest += q[size_t(j) * d.size + i] * wide(k[size_t(t) * d.size + i]);
        p[size_t(j) * (d.length + LANES) + t] = (found[j * n + t] + rest) * d.scale;
      }
  }
  void capped(float *x, int n, float cap) {
    int i = 0;
    for (; i + LANES <= n; i += LANES) store(x + i, cap * tanh_of(load(x + i) / cap));
    for (; i < n; i++) x[i] = cap * tanh_of(x[i] / cap);
  }
  // p = softmax of one query's scores, but for what it must be divided by, which is given back
  float weighed(float *p, int count) {
    float most = -INFINITY, total = 0;
    V high = all(-INFINITY), sums = {};
    int t = 0;
    if (d.score_cap) capped(p, count, d.score_cap);
    for (; t + LANES <= count; t += LANES) { V x = load(p + t); high = x > high ? x : high; }
    for (; t < count; t++) most = p[t] > most ? p[t] : most;
    for (int i = 0; i < LANES; i++) most = high[i] > most ? high[i] : most;
    for (t = 0; t < count; t += LANES) store(p + t, power_of_e(load(p + t) - most));  // beyond the end there is room
    for (t = 0; t + LANES <= count; t += LANES) sums = sums + load(p + t);
    for (; t < count; t++) total += p[t];
    return total + sum(sums);
  }
  template <int Q, int n> void valued(const T *v, int count, const float *p, const float *total, T *to) {
    V o[Q][n] = {};
    for (int t = 0; t < count; t++)
      for (int i = 0; i < n; i++) {
        V held = load(v + size_t(t) * d.size + i * LANES);
        for (int j = 0; j < Q; j++) o[j][i] = o[j][i] + p[size_t(j) * (d.length + LANES) + t] * held;
      }
    for (int j = 0; j < Q; j++) for (int i = 0; i < n; i++) store(to + size_t(j) * d.size + i * LANES, o[j][i] / total[j]);
  }
  // softmax(q K^T scale) V of Q queries over the same keys
  template <int Q> void attended(const float *q, const T *K, const T *W, int count, float *p, T *to) {
    float total[Q];
    int t = 0, i = 0;
    for (; t + 4 <= count; t += 4) score<Q, 4>(q, K + size_t(t) * d.size, p + t);
    for (; t < count; t++) score<Q, 1>(q, K + size_t(t) * d.size, p + t);
    for (int j = 0; j < Q; j++) total[j] = weighed(p + size_t(j) * (d.length + LANES), count);
    for (; i + 4 * LANES <= d.size; i += 4 * LANES) valued<Q, 4>(W + i, count, p, total, to + i);
    for (; i + LANES <= d.size; i += LANES) valued<Q, 1>(W + i, count, p, total, to + i);
    for (; i < d.size; i++)
      for (int j = 0; j < Q; j++) {
        float o = 0;
        for (t = 0; t < count; t++) o += p[size_t(j) * (d.length + LANES) + t] * wide(W[size_t(t) * d.size + i]);
        narrow(to + size_t(j) * d.size + i, o / total[j]);
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
  void go() {
    const int qkv = (d.heads + 2 * d.key_heads) * d.size;
    each_of(s.rows, [&](int r) {
      const T *e = (const T *)d.embedding + size_t(s.tokens[r]) * d.features; float *x = X + size_t(r) * d.features;
      for (int i = 0; i < d.features; i++) x[i] = wide(e[i]) * d.embedding_scale;
      normed(x, d.layer[0].before_attention, d.features, M + size_t(r) * width);
    });
    for (int n = 0; n < d.layers; n++) {
      const Layer &l = d.layer[n];
      products(l.qkv, 1 + (l.qkv[1].out > 0) + (l.qkv[2].out > 0), M, s.rows, live, s.c, &l.o, Y, qkv);
      place(l, qkv);
      attend(l, qkv);
      products(&l.o, 1, N, s.rows, live, s.c, l.gate_up, P, d.features);
      residual(P, l.after_attention, l.before_mlp);
      products(l.gate_up, 1 + (l.gate_up[1].out > 0), M, s.rows, live, s.c, &l.down, Y, 2 * d.inner);
      gate(2 * d.inner);
      products(&l.down, 1, N, s.rows, live, s.c, n + 1 < d.layers ? d.layer[n + 1].qkv : &d.head, P, d.features);
      residual(P, l.after_mlp, n + 1 < d.layers ? d.layer[n + 1].before_attention : d.norm);
    }
    T *kept = alone ? M : (T *)P;
    if (!alone) {
#pragma omp for schedule(static)
      for (int k = 0; k < s.keeps; k++) memcpy(kept + size_t(k) * width, M + size_t(s.kept[k]) * width, sizeof(T) * d.features);
    }
    products(&d.head, 1, kept, s.keeps, kept_live, s.kept_c, nullptr, s.logits, d.head.out);
    if (d.logit_scale == 1.f && !d.logit_cap) return;
#pragma omp for schedule(static)
    for (int k = 0; k < s.keeps; k++) {
      float *logits = s.logits + size_t(k) * d.head.out;
      for (int i = 0; i < d.head.out; i++) logits[i] *= d.logit_scale;
      if (d.logit_cap) capped(logits, d.head.out, d.logit_cap);
    }
  }
};

int most(int a, int b) { return a > b ? a : b; }
constexpr int DECODED = SIDE;  // twice so many outputs are decoded at once, in half precision
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
template <class F> void every_product(const Decoder &d, F f) {
  for (int n = 0; n < d.layers; n++) {
    for (const Linear &each : d.layer[n].qkv) f(each);
    for (const Linear &each : d.layer[n].gate_up) f(each);
    f(d.layer[n].o); f(d.layer[n].down);
  }
  f(d.head);
}
Live live_panels(const Decoder &d, int rows, const uint8_t *live, const float *const *c) {  // empty where no row has a soup
  Live found;
  bool any = false;
  for (int r = 0; r < rows; r++) any |= live[r];
  if (any) every_product(d, [&](const Linear &l) {
    if (!l.A) return;
    if (found.size() <= size_t(l.table)) found.resize(l.table + 1);
    if (found[l.table].size()) return;
    const int panels = l.slices * l.R / columns;
    found[l.table].resize(size_t(rows) * panels);
    for (int r = 0; r < rows; r++)
      for (int k = 0; live[r] && k < panels * columns; k++)
        found[l.table][size_t(r) * panels + k / columns] |= c[l.table][size_t(r) * panels * columns + k] != 0.f;
  });
  return found;
}
template <class T> void run(const Decoder &d, const Step &s) {
  Sizes z = sizes(d); size_t rows = most(s.rows, s.keeps);
  Live live = live_panels(d, s.rows, s.live, s.c), kept_live = live_panels(d, s.keeps, s.kept_live, s.kept_c);
  float *at = s.scratch;
  auto taken = [&](size_t n) { float *p = at; at += (n + 15) / 16 * 16; return p; };
  Run<T> shared{d, s, live, kept_live, taken(rows * d.features), taken(rows * z.outputs), taken(rows * z.width), taken(rows * z.columns),
                taken(4 * size_t(s.threads) * (d.length + LANES)), (T *)taken(rows * z.width), nullptr, (T *)taken(most(rows, 1) * z.width), nullptr,
                z.width, 0, 1, s.rows == 1 && s.keeps == 1};
  shared.M = shared.N;
  float *decoded = taken(size_t(s.threads) * DECODED * z.width), *own = taken(size_t(s.threads) * (2 * z.width + d.features));
#pragma omp parallel num_threads(s.threads)
  {
    Run<T> mine = shared;
#ifdef _OPENMP
    mine.thread = omp_get_thread_num(); mine.threads = omp_get_num_threads();
#endif
    mine.decoded = (T *)(decoded + size_t(mine.thread) * DECODED * z.width);
    if (mine.alone) {
      float *place = own + size_t(mine.thread) * (2 * z.width + d.features);
      mine.M = (T *)place;
      mine.X = place + 2 * z.width;
      if (!TILES) mine.packed = (T *)(place + z.width);  // those who have them share out what is packed
    }
    mine.go();
#ifdef __AMX_BF16__
    if (mine.tiles.outs) release();
#endif
  }
}
}  // namespace

extern "C" {
// How many floats of scratch a step of so many rows needs.
size_t soupmix_scratch(const Decoder *d, int32_t rows, int32_t threads) {
  Sizes z = sizes(*d);
  return size_t(rows) * (d->features + z.outputs + 3 * z.width + z.columns) + size_t(threads) * (DECODED * z.width + 2 * z.width + d->features) + 4 * size_t(threads) * (d->length + LANES) + 9 * 16;
}
void soupmix_step(const Decoder *d, const Step *s) { d->is_bf16 ? run<bf16>(*d, *s) : run<float>(*d, *s); }
}
