// SPDX-License-Identifier: Apache-2.0
// A library that calls forkpty. Before glibc 2.34 it brings libutil into the process. See
// pty_reload.cpp.
#include <pty.h>

extern "C" {

pid_t plugin_forkpty(int* terminal) { return forkpty(terminal, nullptr, nullptr, nullptr); }
}
