// SPDX-License-Identifier: Apache-2.0
// What crowd and fork_cost load many copies of: a function that calls back, so that it stands in a
// stack.
extern "C" void call_back(void (*function)(int depth), int depth) {
  function(depth);
  asm volatile("" ::: "memory");  // no jump in place of the call
}
