/* Conversions of AVX512-FP16, which processors with AMX have as well: all that oneDNN needs, for it computes in fp32. */
#include "emulator.h"

#include <cpuid.h>
#include <immintrin.h>
#include <string.h>

enum { SSE = 1, AVX = 2, MASKS = 5, ZMM_HIGH = 6, ZMM_MORE = 7 };

/* A component of the state that the kernel keeps beside the stack; one that is not there is all zeros. */
static uint8_t *component(ucontext_t *context, int number) {
    static uint32_t offsets[8], sizes[8] = {[SSE] = 256};
    uint8_t *state = (uint8_t *)context->uc_mcontext.fpregs;
    uint64_t *present = (uint64_t *)(state + 512), bit = 1ul << number;
    uint32_t unused;
    offsets[SSE] = 160;
    if (!sizes[number]) __cpuid_count(0xd, number, sizes[number], offsets[number], unused, unused);
    if (!(*present & bit)) memset(state + offsets[number], 0, sizes[number]), *present |= bit;
    return state + offsets[number];
}

/* Where bytes [16 * part, 16 * part + 16) of a vector register are. */
static uint8_t *vector(ucontext_t *context, int number, int part) {
    if (number >= 16) return component(context, ZMM_MORE) + 64 * (number - 16) + 16 * part;
    if (part == 0) return component(context, SSE) + 16 * number;
    if (part == 1) return component(context, AVX) + 16 * number;
    return component(context, ZMM_HIGH) + 32 * number + 16 * (part - 2);
}

/* VCVTPS2PHX between registers: to nearest even, as oneDNN leaves MXCSR. */
static void narrow(ucontext_t *context, const uint8_t *at) {
    const int to = (at[5] >> 3 & 7) | (at[1] & 0x80 ? 0 : 8) | (at[1] & 0x10 ? 0 : 16);
    const int from = (at[5] & 7) | (at[1] & 0x20 ? 0 : 8) | (at[1] & 0x40 ? 0 : 16);
    const int lanes = 4 << (at[3] >> 5 & 3), masked = at[3] & 7, zeroing = at[3] & 0x80;
    uint8_t given[64] __attribute__((aligned(64)));
    uint16_t made[32] __attribute__((aligned(64))) = {0}, old[32] __attribute__((aligned(64)));
    for (int part = 0; part < 4; part++) {
        memcpy(given + 16 * part, vector(context, from, part), 16);
        memcpy((uint8_t *)old + 16 * part, vector(context, to, part), 16);
    }
    uint64_t keep = ~0ul;
    if (masked) memcpy(&keep, component(context, MASKS) + 8 * masked, 8);
    _mm256_store_si256((__m256i *)made, _mm512_cvtps_ph(_mm512_load_ps(given), _MM_FROUND_TO_NEAREST_INT));
    for (int lane = 0; lane < 32; lane++) {
        if (lane >= lanes) made[lane] = 0;
        else if (!(keep >> lane & 1)) made[lane] = zeroing ? 0 : old[lane];
    }
    for (int part = 0; part < 4; part++) memcpy(vector(context, to, part), (uint8_t *)made + 16 * part, 16);
}

int fp16_convert(ucontext_t *context) {
    uint8_t *at = (uint8_t *)context->uc_mcontext.gregs[REG_RIP];
    const int map = at[1] & 7, prefix = at[2] & 0x83, broadcast = at[3] & 0x10;
    if (at[0] != 0x62 || prefix != 1 || broadcast) return 0;
    if (map == 5 && at[4] == 0x1d && at[5] >= 0xc0) {
        narrow(context, at);
        context->uc_mcontext.gregs[REG_RIP] += 6;
        return 1;
    }
    if (at[4] != 0x13 || (map != 6 && map != 2)) return 0;
    /* VCVTPH2PSX is VCVTPH2PS in another map, so it is rewritten for good; map 2: another thread just did */
    if (map == 6) make_writable(at, 2), at[1] = (at[1] & ~7) | 2;
    return 1;
}
