// SPDX-License-Identifier: Apache-2.0
// Our handlers in glibc's list, and their order among other libraries' handlers.
#pragma once

namespace forksafe {

using RegisterAtfork = int (*)(void (*prepare)(), void (*parent)(), void (*child)(), void* dso);

/// Registers the head: the oldest handlers in the process, whose prepare runs last and whose
/// parent and child run first.
int register_head(RegisterAtfork register_atfork);

/// Registers a tail behind another library's handlers: its prepare runs before theirs, its child
/// after theirs.
void register_tail(RegisterAtfork register_atfork);

}  // namespace forksafe
