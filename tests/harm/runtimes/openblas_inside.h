// SPDX-License-Identifier: Apache-2.0
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

struct handler_counts {
  int prepare;
  int parent;
  int child;
};

/// OpenBLAS's own description.
const char* inside_config(void);
/// Makes anonymous mappings of many sizes and writes to them; 0 if it can't.
int inside_map(void);
/// Whether they have their content.
int inside_mappings_hold(void);
/// Whether a thread can lock a recursive mutex twice.
int inside_locks_twice(void);
/// Registers fork handlers that take a lock, release it and count.
void inside_register(void);
struct handler_counts inside_counts(void);
/// c = a * a, of order n.
void inside_multiply(int n, const double* a, double* c);

#ifdef __cplusplus
}
#endif
