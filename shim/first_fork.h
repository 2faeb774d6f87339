// SPDX-License-Identifier: Apache-2.0
// Logs the first fork of a process that has other threads.
//
// The library can count the threads of its process, but can't tell which library started them:
// nothing in a process says that, and forksafe neither interposes pthread_create nor stops threads
// to walk their stacks. So the line names the command that can tell.
#pragma once

namespace forksafe {

/// To be called before a fork. If there is a log, and the process has other threads, writes one
/// line, once. Any thread, any signal handler.
void report_first_fork();

}  // namespace forksafe
