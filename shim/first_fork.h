// SPDX-License-Identifier: Apache-2.0
// The log's word on the first fork that leaves threads behind.
//
// The library can count the threads of its process, but can't tell whose they are: nothing in a
// process says who has started a thread, and forksafe neither interposes pthread_create nor stops
// threads to walk their stacks. So the line names the command that can.
#pragma once

namespace forksafe {

/// To be called before a fork. If there is a log, and the process has other threads, writes one
/// line, once. Any thread, any signal handler.
void report_first_fork();

}  // namespace forksafe
