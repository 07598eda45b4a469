/* Tiles, and the instructions on them: Intel's Software Developer's Manual, volume 2, LDTILECFG to TILEZERO. */
#include "emulator.h"

#include <immintrin.h>
#include <string.h>

enum { TILES = 8, ROWS = 16, ROW_BYTES = 64, MXCSR_DAZ_FTZ_MASKED = 0x9fc0 };

typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t colsb[16];
    uint8_t rows[16];
} tile_config;
_Static_assert(sizeof(tile_config) == 64, "as LDTILECFG reads it");

typedef struct {
    uint8_t row[ROWS][ROW_BYTES];
} tile;

/* A thread's own; static storage, for a handler must not allocate. */
#define OF_THREAD static __thread __attribute__((tls_model("initial-exec"), aligned(64)))
OF_THREAD tile_config config;
OF_THREAD tile tiles[TILES];

static const int REGISTERS[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                  REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

typedef struct {
    const uint8_t *at;
    int length, prefix, opcode; /* prefix: 0 none, 1 66, 2 F3, 3 F2 */
    int mod, reg, rm, vvvv;
    uint64_t address, stride; /* of the memory operand */
} instruction;

/* VEX.128.0F38.W0 49, 4B, 5C, 5E: whether this is one of ours, and its operands. */
static int decode(const uint8_t *at, const greg_t *regs, instruction *is) {
    if (at[0] != 0xc4 || (at[1] & 0x1f) != 2 || at[2] & 0x84) return 0;
    const int opcode = at[3];
    if (opcode != 0x49 && opcode != 0x4b && opcode != 0x5c && opcode != 0x5e) return 0;
    const int index_high = at[1] & 0x40 ? 0 : 8, base_high = at[1] & 0x20 ? 0 : 8;
    const uint8_t *next = at + 5;
    *is = (instruction){.at = at, .prefix = at[2] & 3, .opcode = opcode, .vvvv = ~at[2] >> 3 & 15};
    is->mod = at[4] >> 6, is->reg = at[4] >> 3 & 7, is->rm = at[4] & 7;
    if (is->mod != 3) {
        int base = is->rm, index = 4, scale = 0;
        if (is->rm == 4) {
            base = *next & 7, index = (*next >> 3 & 7) | index_high, scale = *next >> 6;
            next++;
        }
        const int bare = base == 5 && is->mod == 0; /* a displacement and no base, or relative to the next instruction */
        int32_t offset = 0;
        if (is->mod == 1) offset = *(const int8_t *)next, next += 1;
        if (is->mod == 2 || bare) memcpy(&offset, next, 4), next += 4;
        is->address = (int64_t)offset;
        if (!bare) is->address += regs[REGISTERS[base | base_high]];
        else if (is->rm == 5) is->address += (uint64_t)next;
        if (index != 4) is->stride = (uint64_t)regs[REGISTERS[index]] << scale;
        if (opcode == 0x49) is->address += is->stride; /* an ordinary operand: no rows to stride over */
    }
    is->length = next - at;
    return 1;
}

static void load_config(const instruction *is) {
    tile_config given;
    memcpy(&given, (const void *)is->address, sizeof given);
    if (given.palette > 1) die(is->at, "palette %d", given.palette);
    for (int t = 0; given.palette && t < 16; t++) {
        const int none = !given.colsb[t] && !given.rows[t];
        if (t >= TILES ? !none : given.colsb[t] > ROW_BYTES || given.rows[t] > ROWS || (!given.colsb[t] != !given.rows[t]))
            die(is->at, "tile %d of %d rows and %d bytes", t, given.rows[t], given.colsb[t]);
    }
    if (given.palette) config = given;
    else memset(&config, 0, sizeof config);
    memset(tiles, 0, sizeof tiles);
}

static void need(const instruction *is, int t) {
    if (!config.palette || t >= TILES || !config.rows[t]) die(is->at, "tile %d is not configured", t);
}

/* Reads rows times colsb bytes and not one more: what lies behind a row is read only where the program asks for it. */
static void load(const instruction *is) {
    need(is, is->reg);
    tile made = {0};
    for (int r = config.start_row; r < config.rows[is->reg]; r++)
        memcpy(made.row[r], (const uint8_t *)is->address + r * is->stride, config.colsb[is->reg]);
    tiles[is->reg] = made;
}

static void store(const instruction *is) {
    need(is, is->reg);
    for (int r = config.start_row; r < config.rows[is->reg]; r++)
        memcpy((uint8_t *)is->address + r * is->stride, tiles[is->reg].row[r], config.colsb[is->reg]);
}

/* c [m, n] += a [m, k] b [k, n] of 32-bit lanes, each of two halves of fp32 or of four bytes. */
static void need_product(const instruction *is) {
    const int c = is->reg, a = is->rm, b = is->vvvv;
    need(is, c), need(is, a), need(is, b);
    if (a == b || a == c || b == c || config.colsb[c] & 3 || config.colsb[a] & 3 || config.colsb[b] != config.colsb[c] ||
        config.rows[a] != config.rows[c] || config.rows[b] * 4 != config.colsb[a])
        die(is->at, "tiles %d, %d and %d do not fit together", c, a, b);
}

typedef __m512 half_of(__m512i pairs);

static __m512 low_bf16(__m512i pairs) { return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)); }

static __m512 high_bf16(__m512i pairs) {
    return _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(0xffff0000)));
}

static __m512 low_fp16(__m512i pairs) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(pairs)); }

static __m512 high_fp16(__m512i pairs) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(pairs, 16))); }

/* Even and odd products are summed apart over k, then together, then onto c; denormals are zero, rounding to nearest even. */
static inline __attribute__((always_inline)) void product(const instruction *is, half_of low, half_of high) {
    need_product(is);
    tile *c = &tiles[is->reg], *a = &tiles[is->rm], *b = &tiles[is->vvvv];
    const int lanes = config.colsb[is->rm] / 4;
    const __mmask16 columns = (1u << config.colsb[is->reg] / 4) - 1;
    const unsigned before = _mm_getcsr();
    _mm_setcsr(MXCSR_DAZ_FTZ_MASKED);
    for (int m = 0; m < config.rows[is->reg]; m++) {
        __m512 even = _mm512_setzero_ps(), odd = _mm512_setzero_ps();
        for (int k = 0; k < lanes; k++) {
            const __m512i one = _mm512_set1_epi32(((const int32_t *)a->row[m])[k]), row = _mm512_load_si512(b->row[k]);
            even = _mm512_fmadd_ps(low(one), low(row), even);
            odd = _mm512_fmadd_ps(high(one), high(row), odd);
        }
        const __m512 sum = _mm512_add_ps(_mm512_load_ps(c->row[m]), _mm512_add_ps(even, odd));
        _mm512_store_ps(c->row[m], _mm512_maskz_mov_ps(columns, sum));
    }
    _mm_setcsr(before);
}

static void product_bf16(const instruction *is) { product(is, low_bf16, high_bf16); }

static void product_fp16(const instruction *is) { product(is, low_fp16, high_fp16); }

/* The prefix says which operand is signed: F2 both, F3 a, 66 b, none neither. Sums wrap. */
static void product_int8(const instruction *is) {
    need_product(is);
    tile *c = &tiles[is->reg], *a = &tiles[is->rm], *b = &tiles[is->vvvv];
    const int signed_a = is->prefix >= 2, signed_b = is->prefix & 1;
    for (int m = 0; m < config.rows[is->reg]; m++)
        for (int n = 0; n < config.colsb[is->reg] / 4; n++) {
            uint32_t sum = ((const uint32_t *)c->row[m])[n];
            for (int k = 0; k < config.colsb[is->rm]; k++) {
                const uint8_t x = a->row[m][k], y = b->row[k / 4][4 * n + k % 4];
                sum += (uint32_t)((signed_a ? (int8_t)x : x) * (signed_b ? (int8_t)y : y));
            }
            ((uint32_t *)c->row[m])[n] = sum;
        }
}

static void perform(const instruction *is) {
    const int memory = is->mod != 3;
    switch (is->opcode << 4 | is->prefix << 1 | memory) {
    case 0x490 | 0 << 1: memset(&config, 0, sizeof config), memset(tiles, 0, sizeof tiles); return; /* TILERELEASE */
    case 0x490 | 0 << 1 | 1: load_config(is); return;
    case 0x490 | 1 << 1 | 1: memcpy((void *)is->address, &config, sizeof config); return; /* STTILECFG */
    case 0x490 | 3 << 1: need(is, is->reg), memset(&tiles[is->reg], 0, sizeof(tile)); return; /* TILEZERO */
    case 0x4b0 | 1 << 1 | 1: /* TILELOADDT1: a hint to the cache */
    case 0x4b0 | 3 << 1 | 1: load(is); break;
    case 0x4b0 | 2 << 1 | 1: store(is); break;
    case 0x5c0 | 2 << 1: product_bf16(is); break;
    case 0x5c0 | 3 << 1: product_fp16(is); break;
    case 0x5e0 | 0 << 1:
    case 0x5e0 | 1 << 1:
    case 0x5e0 | 2 << 1:
    case 0x5e0 | 3 << 1: product_int8(is); break;
    default: die(is->at, "an instruction that is not emulated");
    }
    config.start_row = 0;
}

int tiles_perform(ucontext_t *context) {
    greg_t *regs = context->uc_mcontext.gregs;
    instruction is;
    int count = 0;
    for (; decode((const uint8_t *)regs[REG_RIP], regs, &is); count++) { /* a signal costs more than an instruction */
        perform(&is);
        regs[REG_RIP] += is.length;
    }
    return count;
}
