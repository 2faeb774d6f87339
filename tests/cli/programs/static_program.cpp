// SPDX-License-Identifier: Apache-2.0
// Linked with -static: nothing can be preloaded into it.
#include <cstdio>

int main() {
  puts("static");
  return 0;
}
