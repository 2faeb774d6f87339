// SPDX-License-Identifier: Apache-2.0
// A library that needs another one, plugin.cpp, whose constructor runs first. Its own does what the
// program that loads it wants, if anything.
#include <pthread.h>

#include "plugin.h"

extern int plugin_is_needed;
int* needed = &plugin_is_needed;

__attribute__((constructor)) static void construct() {
  if (in_last_constructor != nullptr) in_last_constructor(pthread_atfork);
}
