/* AMX in software: preloaded into a process, oneDNN (inside torch) runs its own AMX kernels on a processor without AMX.
 *
 *     gcc -O2 -shared -fPIC -march=native *.c -o emulator.so -ldl
 *     LD_PRELOAD=emulator.so AMX_SITES=sites.txt AMX_MODEL=sapphire COMMAND       (emulator.py does both)
 *
 * A tile instruction is illegal here, so the processor raises SIGILL, and our handler does what the instruction would have
 * done (tiles.c). Programs find AMX by `cpuid`, `xgetbv` and arch_prctl(2). Nothing traps the first two in a virtual machine,
 * so those that AMX_SITES lists (library, address, kind) are overwritten with `ud2` as soon as the library is loaded, and
 * answered by the handler too: the truth, and the bits of Sapphire Rapids, or those of Granite Rapids, beside it. arch_prctl
 * is answered by our `syscall`. Both processors have AVX512-FP16 as well (fp16.c).
 * What is not emulated ends the process with a message: nothing is silently wrong. Timings mean nothing.
 */
#include "emulator.h"

#include <cpuid.h>
#include <dlfcn.h>
#include <link.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MAX_SITES = 512, XFEATURES_AMX = 0x60000, TILE_DATA = 18 };
enum { ARCH_GET_XCOMP_SUPP = 0x1021, ARCH_GET_XCOMP_PERM = 0x1022, ARCH_REQ_XCOMP_PERM = 0x1023 };

typedef struct {
    uint64_t address; /* within the library; once patched, in memory */
    char kind;        /* 'c' cpuid, 'x' xgetbv */
    char library[64];
    int patched;
} site;

static site sites[MAX_SITES];
static int site_count;
static int granite;            /* whether it is Granite Rapids, which has AMX-FP16 too */
static uint64_t permitted;     /* what arch_prctl grants, process-wide as in the kernel */
static struct sigaction after; /* whom the program asked for: it has what is not ours */

void die(const uint8_t *at, const char *format, ...) {
    char text[512];
    va_list given;
    va_start(given, format);
    int length = snprintf(text, sizeof text, "amx emulator: ");
    length += vsnprintf(text + length, sizeof text - length, format, given);
    va_end(given);
    if (at) {
        length += snprintf(text + length, sizeof text - length, "; bytes at %p:", (const void *)at);
        for (int i = 0; i < 12; i++) length += snprintf(text + length, sizeof text - length, " %02x", at[i]);
    }
    text[length++] = '\n';
    if (write(2, text, length) < 0) _exit(70);
    _exit(70);
}

void make_writable(uint8_t *code, int length) {
    const uint64_t from = (uint64_t)code & -4096ul, end = ((uint64_t)code + length + 4095) & -4096ul;
    if (mprotect((void *)from, end - from, PROT_READ | PROT_WRITE | PROT_EXEC)) die(code, "this code cannot be written");
}

static void answer_cpuid(greg_t *regs) {
    uint32_t leaf = regs[REG_RAX], sub = regs[REG_RCX], a, b, c, d;
    __cpuid_count(leaf, sub, a, b, c, d);
    if (leaf == 7 && sub == 0) {
        if (a < 1) a = 1;
        d |= 1u << 22 | 1u << 23 | 1u << 24 | 1u << 25; /* AMX-BF16, AVX512-FP16, AMX-TILE, AMX-INT8 */
    } else if (leaf == 7 && sub == 1) {
        a |= 1u << 4 | (uint32_t)granite << 21; /* AVX-VNNI, AMX-FP16 */
    } else if (leaf == 0xd && sub == 0) {
        a |= XFEATURES_AMX;
    } else if (leaf == 0x1d) { /* palette 1: 8 tiles of 16 rows of 64 bytes */
        a = sub == 0 ? 1 : sub == 1 ? 1024u << 16 | 8192 : 0;
        b = sub == 1 ? 8u << 16 | 64 : 0;
        c = sub == 1 ? 16 : 0;
        d = 0;
    } else if (leaf == 0x1e) {
        a = c = d = 0;
        b = sub == 0 ? 64u << 8 | 16 : 0;
    }
    regs[REG_RAX] = a, regs[REG_RBX] = b, regs[REG_RCX] = c, regs[REG_RDX] = d;
}

static void answer_xgetbv(greg_t *regs) {
    uint32_t a, d;
    __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"((uint32_t)regs[REG_RCX]));
    if ((uint32_t)regs[REG_RCX] == 0) a |= XFEATURES_AMX;
    regs[REG_RAX] = a, regs[REG_RDX] = d;
}

static const site *site_at(const uint8_t *at) {
    for (int s = 0; s < site_count; s++)
        if (sites[s].patched && sites[s].address == (uint64_t)at) return &sites[s];
    return NULL;
}

static void pass_on(int number, siginfo_t *info, void *context, const uint8_t *at) {
    if (at[0] == 0x62) die(at, "an AVX-512 instruction that this processor has not, AVX512-FP16 perhaps"); /* EVEX */
    if (after.sa_flags & SA_SIGINFO) after.sa_sigaction(number, info, context);
    else if (after.sa_handler != SIG_DFL && after.sa_handler != SIG_IGN) after.sa_handler(number);
    else die(at, "an illegal instruction");
}

static void on_illegal(int number, siginfo_t *info, void *context) {
    greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;
    const uint8_t *at = (const uint8_t *)regs[REG_RIP];
    const site *patched = at[0] == 0x0f && at[1] == 0x0b ? site_at(at) : NULL;
    if (patched && patched->kind == 'c') answer_cpuid(regs), regs[REG_RIP] += 2;
    else if (patched) answer_xgetbv(regs), regs[REG_RIP] += 3;
    else if (!tiles_perform(context) && !fp16_convert(context)) pass_on(number, info, context, at);
}

#define NEXT(name) ((__typeof__(name) *)dlsym(RTLD_NEXT, #name))

static void patch(const char *path, uint64_t base, site *one) {
    static const uint8_t truth[2][3] = {{0x0f, 0xa2}, {0x0f, 0x01, 0xd0}}, illegal[3] = {0x0f, 0x0b, 0x90};
    const int xgetbv = one->kind == 'x', length = xgetbv ? 3 : 2;
    uint8_t *at = (uint8_t *)(base + one->address);
    if (memcmp(at, truth[xgetbv], length)) die(at, "%s is not the library that was looked through", path);
    make_writable(at, length);
    memcpy(at, illegal, length);
    one->address = (uint64_t)at, one->patched = 1;
}

static int patch_library(struct dl_phdr_info *info, size_t size, void *unused) {
    (void)size, (void)unused;
    const char *slash = strrchr(info->dlpi_name, '/'), *name = slash ? slash + 1 : info->dlpi_name;
    for (int s = 0; s < site_count; s++)
        if (!sites[s].patched && !strcmp(sites[s].library, name)) patch(info->dlpi_name, info->dlpi_addr, &sites[s]);
    return 0;
}

void *dlopen(const char *path, int mode) {
    void *made = NEXT(dlopen)(path, mode);
    if (made) dl_iterate_phdr(patch_library, NULL);
    return made;
}

/* faulthandler, which pytest switches on, asks for SIGILL too: it has what is left over. */
int sigaction(int number, const struct sigaction *given, struct sigaction *old) {
    if (number != SIGILL) return NEXT(sigaction)(number, given, old);
    if (old) *old = after;
    if (given) after = *given;
    return 0;
}

long syscall(long number, ...) {
    va_list given;
    long a[6];
    va_start(given, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(given, long);
    va_end(given);
    if (number == SYS_arch_prctl && a[0] == ARCH_REQ_XCOMP_PERM && a[1] == TILE_DATA) return permitted = XFEATURES_AMX, 0;
    const long made = NEXT(syscall)(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    if (number == SYS_arch_prctl && made == 0) {
        if (a[0] == ARCH_GET_XCOMP_PERM) *(uint64_t *)a[1] |= permitted;
        if (a[0] == ARCH_GET_XCOMP_SUPP) *(uint64_t *)a[1] |= XFEATURES_AMX;
    }
    return made;
}

static void read_sites(void) {
    const char *path = getenv("AMX_SITES");
    FILE *file = path ? fopen(path, "r") : NULL;
    if (!file) die(NULL, "AMX_SITES names no file");
    site one = {0};
    while (fscanf(file, "%63s %lx %c", one.library, &one.address, &one.kind) == 3) {
        if (site_count == MAX_SITES) die(NULL, "more than %d sites", MAX_SITES);
        sites[site_count++] = one;
    }
    fclose(file);
}

__attribute__((constructor)) static void begin(void) {
    const struct sigaction ours = {.sa_sigaction = on_illegal, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_RESTART};
    const char *model = getenv("AMX_MODEL");
    granite = model && !strcmp(model, "granite");
    read_sites();
    if (NEXT(sigaction)(SIGILL, &ours, &after)) die(NULL, "SIGILL cannot be handled");
    dl_iterate_phdr(patch_library, NULL);
}
