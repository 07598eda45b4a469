/* What the parts of the emulator know of one another. */
#pragma once
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <ucontext.h>

/* Ends the process with a message, and the bytes of the instruction at `at` where there is one: nothing is silently wrong. */
__attribute__((noreturn, format(printf, 2, 3))) void die(const uint8_t *at, const char *format, ...);

/* Code is written over while it may run, so it stays executable. */
void make_writable(uint8_t *code, int length);

/* Perform the tile instructions at RIP, however many there are in a row, and move RIP on; 0 where there is none. */
int tiles_perform(ucontext_t *context);

/* Perform the conversion of AVX512-FP16 at RIP, or make it one that the processor has; 0 where there is none. */
int fp16_convert(ucontext_t *context);
