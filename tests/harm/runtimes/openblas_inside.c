// SPDX-License-Identifier: Apache-2.0
// A library that has OpenBLAS linked in (libopenblas.a), and has memory and fork handlers of its
// own. It exports openblas_get_config, as do libraries that print which BLAS they use. See
// own_memory.cpp.
#define _GNU_SOURCE
#include "openblas_inside.h"

#include <pthread.h>
#include <sys/mman.h>

extern char* openblas_get_config(void);
extern void dgemm_(const char*, const char*, const int*, const int*, const int*, const double*,
                   const double*, const int*, const double*, const int*, const double*, double*,
                   const int*);

// Mappings of every size that OpenBLAS's own buffers may have, and others. Only the first and the
// last page are written.
enum { kSmallest = 16, kLargest = 27 };
static volatile char* mappings[kLargest + 1];

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct handler_counts counts;

static void prepare(void) {
  pthread_mutex_lock(&lock);
  ++counts.prepare;
}
static void in_parent(void) {
  ++counts.parent;
  pthread_mutex_unlock(&lock);
}
static void in_child(void) {
  ++counts.child;
  pthread_mutex_unlock(&lock);
}

const char* inside_config(void) { return openblas_get_config(); }

int inside_map(void) {
  for (int bits = kSmallest; bits <= kLargest; ++bits) {
    const size_t size = (size_t)1 << bits;
    char* start =
        mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (start == MAP_FAILED) return 0;
    start[0] = (char)bits;
    start[size - 1] = (char)bits;
    mappings[bits] = start;
  }
  return 1;
}

int inside_mappings_hold(void) {
  for (int bits = kSmallest; bits <= kLargest; ++bits) {
    const size_t size = (size_t)1 << bits;
    if (mappings[bits][0] != bits || mappings[bits][size - 1] != bits) return 0;
  }
  return 1;
}

int inside_locks_twice(void) {
  static pthread_mutex_t recursive = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
  if (pthread_mutex_lock(&recursive) != 0) return 0;
  const int twice = pthread_mutex_trylock(&recursive) == 0;
  if (twice) pthread_mutex_unlock(&recursive);
  return pthread_mutex_unlock(&recursive) == 0 && twice;
}

void inside_register(void) { pthread_atfork(prepare, in_parent, in_child); }

struct handler_counts inside_counts(void) {
  return counts;
}

void inside_multiply(int n, const double* a, double* c) {
  const double one = 1;
  const double zero = 0;
  dgemm_("N", "N", &n, &n, &n, &one, a, &n, a, &n, &zero, c, &n);
}
