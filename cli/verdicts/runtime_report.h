// SPDX-License-Identifier: Apache-2.0
// Prints the runtimes of a process, as a table and as JSON, for list, check and diagnose.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/terminal.h"
#include "verdicts/other_threads.h"
#include "verdicts/thread_runtimes.h"

namespace forksafe::cli {

/// "OpenBLAS 0.3.21 on its own threads"
std::string describe(const ThreadRuntime& runtime);

/// Whether the library guards a process, as one cell of a table: "no" if it does not guard one of
/// the runtimes that need it, "yes" if it is there and switched on.
Cell guard_cell(const std::vector<ThreadRuntime>& runtimes, const Guard& guard);

std::string runtime_table(const std::vector<ThreadRuntime>& runtimes);

/// A line for each runtime that is linked in: how it was recognised, and what to do.
std::string linked_in_note(const std::vector<ThreadRuntime>& runtimes);

/// Lines that name the threads of no runtime that forksafe knows. Empty if there are none.
std::string other_threads_note(const std::vector<OtherThreads>& others);

/// An array with an object for each of them; its user_api is null.
nlohmann::ordered_json other_threads_json(const std::vector<OtherThreads>& others);

/// A line that says what to do if KMP_INIT_AT_FORK switches the fork handlers of one of the
/// runtimes off. Otherwise empty.
std::string fork_care_note(const Process& process, const std::vector<ThreadRuntime>& runtimes);

/// An array with the keys of threadpoolctl 3.6's threadpool_info (user_api, internal_api,
/// num_threads, prefix, filepath, version, threading_layer, architecture), and then our own keys.
/// Unknown values are null.
nlohmann::ordered_json runtime_json(const std::vector<ThreadRuntime>& runtimes);

/// Prints JSON on standard output. Bytes that are not UTF-8 (in paths) are replaced.
void print_json(const nlohmann::ordered_json& json);

}  // namespace forksafe::cli
