// SPDX-License-Identifier: Apache-2.0
// A library whose constructor and destructor do what the program that loads it wants.
#include "plugin.h"

#include <pthread.h>

__attribute__((constructor)) static void construct() { in_plugin_constructor(pthread_atfork); }
__attribute__((destructor)) static void destruct() { in_plugin_destructor(); }

int plugin_is_needed = 1;
