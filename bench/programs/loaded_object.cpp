// SPDX-License-Identifier: Apache-2.0
// crowd and fork_cost load many copies of this object. Its function calls back, so the object
// appears in the stack of the thread.
extern "C" void call_back(void (*function)(int depth), int depth) {
  function(depth);
  asm volatile("" ::: "memory");  // keeps the compiler from making the call a jump
}
